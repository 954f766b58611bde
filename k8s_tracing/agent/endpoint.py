# SPDX-License-Identifier: Apache-2.0
"""Where spans go: OpenTelemetry's OTEL_EXPORTER_OTLP_* variables, as its specification defines them.

A variable with TRACES_ in its name goes before the one without.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from k8s_tracing.errors import ExportError

log = logging.getLogger(__name__)

HTTP = "http/protobuf"
GRPC = "grpc"
PROTOCOLS = (HTTP, GRPC)

DEFAULT_URLS = {HTTP: "http://localhost:4318", GRPC: "http://localhost:4317"}
DEFAULT_TIMEOUT_S = 10.0
TRACES_PATH = "v1/traces"


@dataclass(frozen=True)
class Endpoint:
    """One OTLP receiver and how to talk to it.

    Attributes:
        url: With HTTP the whole URL that is posted to. May hold a password: `address` does not.
        headers: Never logged: they hold credentials.
        gzip: Are requests compressed?
        insecure: Whether gRPC goes without TLS where the URL has no scheme.
        certificate: Whom to trust, instead of the system's authorities.
        client_key: Ours, where the receiver wants to know who we are.
        client_certificate: That key's.
    """

    protocol: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    gzip: bool = False
    insecure: bool = False
    certificate: Path | None = None
    client_key: Path | None = None
    client_certificate: Path | None = None

    @property
    def address(self) -> str:
        """The URL without user and password, for logs."""
        parts = urlsplit(self.url)
        if parts.hostname is None or "@" not in parts.netloc:
            return self.url
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def from_environment(
    environ: Mapping[str, str], *, url: str | None = None, protocol: str | None = None
) -> Endpoint:
    """Read the variables; `url` and `protocol` go before them.

    Args:
        environ: Where the variables are.
        url: A base URL, to which HTTP adds `/v1/traces` unless that stands there already.
        protocol: One of PROTOCOLS.

    Raises:
        ExportError: A variable says something that cannot be.
    """

    def read(name: str) -> str:
        value = environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
        return value or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()

    def file(name: str) -> Path | None:
        value = read(name)
        if not value:
            return None
        path = Path(value)
        if not path.is_file():
            raise ExportError(f"OTEL_EXPORTER_OTLP_{name} names a file that does not exist: {path}")
        return path

    chosen = protocol or read("PROTOCOL") or HTTP
    if chosen not in PROTOCOLS:
        raise ExportError(
            f"the OTLP protocol {chosen!r} is not known here: set OTEL_EXPORTER_OTLP_PROTOCOL or --protocol to "
            f"{' or '.join(PROTOCOLS)}"
        )
    target = _url(environ, url, chosen)
    return Endpoint(
        protocol=chosen,
        url=target,
        headers=parse_headers(read("HEADERS")),
        timeout_s=_timeout_s(read("TIMEOUT")),
        gzip=_gzip(read("COMPRESSION"), target),
        insecure=read("INSECURE").lower() == "true",
        certificate=file("CERTIFICATE"),
        client_key=file("CLIENT_KEY"),
        client_certificate=file("CLIENT_CERTIFICATE"),
    )


def is_configured(environ: Mapping[str, str]) -> bool:
    """Does a variable name an endpoint?"""
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return any(environ.get(name, "").strip() for name in names)


def parse_headers(text: str) -> dict[str, str]:
    """Read `key=value,key=value`, the values percent-encoded."""
    headers: dict[str, str] = {}
    for number, pair in enumerate(text.split(","), start=1):
        key, equals, value = pair.partition("=")
        if key.strip() and equals:
            headers[key.strip().lower()] = unquote(value.strip())
        elif pair.strip():
            log.warning("entry %d of OTEL_EXPORTER_OTLP_HEADERS is not key=value: ignored", number)
    return headers


def _url(environ: Mapping[str, str], url: str | None, protocol: str) -> str:
    own = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
    if url is None and own:
        # Named for traces alone: taken as it is. For HTTP a bare host means its root.
        return own if protocol == GRPC or urlsplit(own).path else f"{own}/"
    base = url or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or DEFAULT_URLS[protocol]
    if protocol == GRPC:
        return base
    if urlsplit(base).scheme not in ("http", "https"):
        raise ExportError(f"the endpoint {base!r} is not a URL: write it as http://HOST:4318")
    base = base.rstrip("/")
    return base if base.endswith(f"/{TRACES_PATH}") else f"{base}/{TRACES_PATH}"


def _timeout_s(text: str) -> float:
    if not text:
        return DEFAULT_TIMEOUT_S
    try:
        timeout_ms = float(text)
    except ValueError:
        timeout_ms = -1.0
    if not 0 < timeout_ms < float("inf"):
        raise ExportError(f"OTEL_EXPORTER_OTLP_TIMEOUT is not a number of milliseconds: {text!r}")
    return timeout_ms / 1000


def _gzip(text: str, url: str) -> bool:
    """Unless somebody says: compressed on its way to another machine, where bytes cost more than cycles."""
    if text not in ("", "gzip", "none"):
        raise ExportError(f"OTEL_EXPORTER_OTLP_COMPRESSION is neither gzip nor none: {text!r}")
    if text:
        return text == "gzip"
    host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"
