# SPDX-License-Identifier: Apache-2.0
"""The viewer: an OTLP receiver, a store, Jaeger's query API and a page, for where no Jaeger is at hand."""
