# SPDX-License-Identifier: Apache-2.0
"""Spans of a stock HAProxy or nginx: configuration that propagates the trace, log lines that become spans."""
