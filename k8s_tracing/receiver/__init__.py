# SPDX-License-Identifier: Apache-2.0
"""An OTLP receiver over HTTP and gRPC, for whoever says what becomes of the spans: the viewer and the agent."""
