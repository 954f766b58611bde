# SPDX-License-Identifier: Apache-2.0
"""Where spans go: OpenTelemetry's OTEL_EXPORTER_OTLP_* variables, and how several receivers are named.

The variables mean what OpenTelemetry's specification says. One with TRACES_ in its name goes before the one without.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from k8s_tracing.errors import ExportError

log = logging.getLogger(__name__)

HTTP = "http/protobuf"
GRPC = "grpc"
PROTOCOLS = (HTTP, GRPC)

# What may stand after the URL of an endpoint.
_KEYS = frozenset(
    {
        "protocol",
        "headers-file",
        "timeout",
        "compression",
        "certificate",
        "client-key",
        "client-certificate",
    }
)
_GRPC_SCHEMES = {"grpc": "http", "grpcs": "https"}
_PREFIX = "OTEL_EXPORTER_OTLP_"
_TRACES = f"{_PREFIX}TRACES_"
_CREDENTIALS = ("HEADERS", "CLIENT_KEY", "CLIENT_CERTIFICATE")

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
        """The URL for logs: without user, password and query, any of which can be a secret."""
        parts = urlsplit(self.url)
        if parts.hostname is None:
            return self.url
        netloc = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=netloc, query="", fragment="").geturl()

    @property
    def name(self) -> str:
        """What it is called in logs and metrics."""
        return f"{self.address} ({self.protocol})"


def from_texts(
    texts: Sequence[str], environ: Mapping[str, str], *, protocol: str | None = None
) -> list[Endpoint]:
    """Read receivers as the command line names them: `URL[,key=value]...`.

    `grpc://` and `grpcs://` are OTLP/gRPC without and with TLS. The keys are those of the variables, in lower case and
    with dashes, and go before these; `headers-file` names a file of headers, so that no secret is on a command line.
    Credentials in variables (headers, client key and certificate) are for one receiver: they go to the first alone.

    Args:
        texts: One for each receiver.
        environ: Where the variables are.
        protocol: For those that do not say.

    Raises:
        ExportError: A text says something that cannot be.
    """
    endpoints: list[Endpoint] = []
    for text in texts:
        endpoint = _from_text(text, environ, protocol, is_first=not endpoints)
        if any(endpoint.name == other.name for other in endpoints):
            raise ExportError(f"the endpoint {endpoint.name} is named twice")
        endpoints.append(endpoint)
    return endpoints


def _from_text(
    text: str, environ: Mapping[str, str], protocol: str | None, *, is_first: bool
) -> Endpoint:
    url, *options = text.split(",")
    own = {name: value for name, value in environ.items() if is_first or not _is_credential(name)}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or key not in _KEYS:
            raise ExportError(
                f"{key!r} in an --endpoint is not known: after the URL may stand "
                f"{', '.join(f'{key}=...' for key in sorted(_KEYS))}, with commas"
            )
        if key == "headers-file":
            own[f"{_TRACES}HEADERS"] = _read_headers(Path(value))
        elif key == "protocol":
            protocol = value
        else:
            own[_TRACES + key.upper().replace("-", "_")] = value
    scheme, separator, rest = url.partition("://")
    if separator and scheme in _GRPC_SCHEMES:
        url, protocol = f"{_GRPC_SCHEMES[scheme]}://{rest}", GRPC
    return from_environment(own, url=url, protocol=protocol)


def _is_credential(variable: str) -> bool:
    return variable.startswith(_PREFIX) and variable.endswith(_CREDENTIALS)


def _read_headers(path: Path) -> str:
    try:
        return ",".join(path.read_text().split("\n"))
    except OSError as error:
        raise ExportError(f"cannot read the headers in {path}: {error.strerror}") from error


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
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https"):
        raise ExportError(f"the endpoint {base!r} is not a URL: write it as http://HOST:4318")
    path = parts.path.rstrip("/")
    if not path.endswith(f"/{TRACES_PATH}"):
        path = f"{path}/{TRACES_PATH}"
    return parts._replace(path=path, fragment="").geturl()


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
