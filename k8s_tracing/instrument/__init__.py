# SPDX-License-Identifier: Apache-2.0
"""Helpers for the edges of a program, where OpenTelemetry has none or ours are much cheaper.

`asgi` and `wsgi` make a span of each request that is served, `requests` of each that is sent, `redis` of each command;
`threads` carries the context into pools. For everything else take OpenTelemetry's instrumentations: they work
unchanged.
"""
