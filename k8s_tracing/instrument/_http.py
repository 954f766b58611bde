# SPDX-License-Identifier: Apache-2.0
"""What the ASGI and WSGI middleware share, beside the attributes of HTTP (k8s_tracing/http.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeVar

from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Span, StatusCode

from k8s_tracing.http import span_name

T = TypeVar("T")

_logger = logging.getLogger("k8s_tracing")

#: The headers that become attributes.
HEADERS = frozenset(
    (
        "forwarded",
        "host",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    )
)
W3C_HEADERS = frozenset(("baggage", "traceparent", "tracestate"))


def set_outcome(span: Span, method: str, route: str | None, status: int, failed: bool) -> None:
    """Put on a span what is known when the request has been handled.

    Args:
        span: still open.
        method: of the request.
        route: the template that the path matched, None when unknown.
        status: of the response; 0 when none was sent.
        failed: whether an exception has set the span's status already.
    """
    if route:
        span.update_name(f"{span_name(method)} {route}")
        span.set_attribute("http.route", route)
    if status:
        span.set_attribute("http.response.status_code", status)
        if status >= 500 and not failed:
            span.set_attribute("error.type", str(status))
            span.set_status(StatusCode.ERROR)


def set_failure(span: Span, error: Exception) -> None:
    """Put an exception that leaves the application on a span that is still open."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    span.set_attribute("error.type", name)
    span.record_exception(error)
    try:
        text = f"{kind.__name__}: {error}"
    except Exception:  # its text is code of the application, and may fail as well
        text = kind.__name__
    span.set_status(StatusCode.ERROR, text)


def safely(route_of: Callable[[T], str | None]) -> Callable[[T], str | None]:
    """Return `route_of` as a function that raises nothing: a request must not fail for its span's name."""

    def route_or_none(request: T) -> str | None:
        try:
            return route_of(request)
        except Exception:
            _logger.warning("the route of a request cannot be told", exc_info=True)
            return None

    return route_or_none


def path_filter(paths: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that says whether one of `paths` is meant; "/static/*" is all below /static/.

    Raises:
        TypeError: `paths` is one str, whose letters would be taken for paths.
    """
    if isinstance(paths, str):
        raise TypeError(f"excluded_paths is a list of paths: [{paths!r}], not {paths!r}")
    paths = tuple(paths)
    exact = frozenset(path for path in paths if not path.endswith("*"))
    prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))
    return lambda path: path in exact or path.startswith(prefixes)


@lru_cache(maxsize=8)
def reads_only_w3c(propagator: TextMapPropagator) -> bool:
    """Some others also read headers that are not among their `fields`; for them, all are decoded."""
    return propagator.fields <= W3C_HEADERS
