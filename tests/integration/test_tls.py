"""OTLP over TLS with a private authority and a client certificate, against real servers of both protocols."""

import http.server
import os
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from k8s_tracing.agent.endpoint import from_texts
from k8s_tracing.agent.export import open_exporter
from k8s_tracing.agent.otlp_answer import RetryableError
from k8s_tracing.agent.otlp_grpc import METHOD
from k8s_tracing.otlp import to_request
from k8s_tracing.record import SpanRecord

SPAN = SpanRecord("0" * 31 + "1", "0" * 15 + "1", "over TLS", 1, 2)
REQUEST = to_request([SPAN])
SECRET = "swordfish"


class Files:
    """An authority, the servers' certificate and ours, as files."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.server = self.authority.issue_cert("localhost", "127.0.0.1")
        ours = self.authority.issue_cert("agent@k8s-tracing.test")
        foreign = trustme.CA()
        self.certificate, self.key, self.chain = (folder / name for name in ("ca", "key", "cert"))
        self.foreign = folder / "foreign"
        self.headers = folder / "headers"
        self.headers.write_text(f"authorization={SECRET}\n")
        self.authority.cert_pem.write_to_path(str(self.certificate))
        foreign.cert_pem.write_to_path(str(self.foreign))
        ours.private_key_pem.write_to_path(str(self.key))
        ours.cert_chain_pems[0].write_to_path(str(self.chain))

    def options(self, **changed: Path | None) -> str:
        """What stands after the URL."""
        given = {
            "certificate": self.certificate,
            "client-key": self.key,
            "client-certificate": self.chain,
            "headers-file": self.headers,
        } | {name.replace("_", "-"): path for name, path in changed.items()}
        return "".join(f",{name}={path}" for name, path in given.items() if path is not None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "*")


Got = list[tuple[bytes, str]]


@contextmanager
def http_server(files: Files) -> Iterator[tuple[str, Got]]:
    got: Got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((body, self.headers.get("authorization", "")))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> Any:
            # The handshake is for the connection's thread: this one has to accept the next.
            plain, address = super().get_request()
            plain.settimeout(10)
            return context.wrap_socket(
                plain, server_side=True, do_handshake_on_connect=False
            ), address

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a handshake that fails is what some tests are about

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.server.configure_cert(context)
    files.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


@contextmanager
def grpc_server(files: Files) -> Iterator[tuple[str, Got]]:
    got: Got = []

    def export(request: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        got.append((request, metadata.get("authorization", "")))
        return b""

    service, _, method = METHOD.lstrip("/").partition("/")
    handler = grpc.method_handlers_generic_handler(
        service, {method: grpc.unary_unary_rpc_method_handler(export)}
    )
    credentials = grpc.ssl_server_credentials(
        [(files.server.private_key_pem.bytes(), files.server.cert_chain_pems[0].bytes())],
        files.authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((handler,))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        yield f"grpcs://127.0.0.1:{port}", got
        server.stop(None).wait()


PROTOCOLS = pytest.mark.parametrize("serve", [http_server, grpc_server], ids=["http", "grpc"])


def send(text: str) -> int:
    (endpoint,) = from_texts([text], os.environ)
    exporter = open_exporter(endpoint)
    try:
        return exporter.send(REQUEST, 20.0)
    finally:
        exporter.close()


@PROTOCOLS
def test_both_sides_show_who_they_are(serve: Any, files: Files) -> None:
    with serve(files) as (url, got):
        assert send(url + files.options()) == 0
    assert got == [(REQUEST, SECRET)]


@PROTOCOLS
def test_the_variables_do_the_same(
    serve: Any, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", str(files.certificate))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(files.foreign))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(files.key))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(files.chain))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}")
    with serve(files) as (url, got):
        assert send(url) == 0
    assert got == [(REQUEST, SECRET)]


@PROTOCOLS
@pytest.mark.parametrize("wrong", ["a foreign authority", "the system's authorities", "no client"])
def test_nothing_is_sent_to_whom_is_not_trusted(
    serve: Any, files: Files, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    changed: dict[str, Path | None] = {
        "a foreign authority": {"certificate": files.foreign},
        "the system's authorities": {"certificate": None},
        "no client": {"client_key": None, "client_certificate": None},
    }[wrong]
    with serve(files) as (url, got), pytest.raises(RetryableError) as raised:
        send(url + files.options(**changed))
    assert got == []
    assert SECRET not in str(raised.value) + caplog.text
