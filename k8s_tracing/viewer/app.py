# SPDX-License-Identifier: Apache-2.0
"""The viewer's two applications, the page with its APIs and the OTLP receiver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from k8s_tracing.receiver.http import HttpReceiver
from k8s_tracing.viewer.api import LegacyApi, V3Api, json_response
from k8s_tracing.viewer.page_api import News, PageApi
from k8s_tracing.viewer.store import Store

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE = Path(__file__).parent / "page"

#: The page is what this server sends and nothing else: a span's texts can name no script, style, image or address.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def query_app(store: Store, news: News, page: Path = PAGE) -> ASGIApp:
    """Return the page and the APIs that it and others ask."""
    apis = (PageApi(store.search, news), LegacyApi(store.search), V3Api(store.search))
    routes = [route for api in apis for route in api.routes()]
    app = Starlette(
        routes=[
            *routes,
            Route("/api/{path:path}", _no_such_api),
            Mount("/", _Page(directory=page, html=True, check_dir=False)),
        ]
    )
    return _with_headers(app)


def otlp_app(receiver: HttpReceiver) -> ASGIApp:
    """Return the receiver over HTTP."""
    return _with_headers(Starlette(routes=[receiver.route()]))


class _Page(StaticFiles):
    """The page's files. A path that is none of them, like /trace/{id}, is the page itself: it looks at the address."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            return await super().get_response(path, scope)
        except HTTPException as error:
            # Two traces side by side are /trace/{id}...{id}.
            if error.status_code != 404 or (
                "." in path.rpartition("/")[2] and not path.startswith("trace/")
            ):
                raise
            return await super().get_response("index.html", scope)


def _no_such_api(request: Request) -> Response:
    return json_response('{"errors":[{"code":404,"msg":"there is no such API"}]}', 404)


def _with_headers(app: ASGIApp) -> ASGIApp:
    headers = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]

    async def with_headers(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        await app(scope, receive, send_with_headers)

    return with_headers
