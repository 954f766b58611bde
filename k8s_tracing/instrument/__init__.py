# SPDX-License-Identifier: Apache-2.0
"""Helpers for the edges of a program, where OpenTelemetry has none or ours are much cheaper.

`asgi` and `wsgi` make a span of each request, `threads` carries the context into pools. For everything else take
OpenTelemetry's instrumentations: they work unchanged.
"""
