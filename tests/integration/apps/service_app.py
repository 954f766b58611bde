"""An endpoint of a Service: a SERVER span for each request, whose number is in its path."""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

import k8s_tracing
from k8s_tracing.instrument.asgi import TracingMiddleware


async def answer(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    """Say ok."""
    assert scope["type"] == "http"
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


if __name__ == "__main__":
    name, host, port = sys.argv[1:]
    k8s_tracing.init(name, backend="lttng")
    uvicorn.run(
        TracingMiddleware(answer),
        host=host,
        port=int(port),
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
