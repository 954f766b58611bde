# SPDX-License-Identifier: Apache-2.0
"""The node agent: what LTTng recorded becomes OTLP and goes to a backend."""
