"""OTEL_EXPORTER_OTLP_* variables."""

from pathlib import Path

import pytest

from k8s_tracing.agent.endpoint import (
    GRPC,
    HTTP,
    Endpoint,
    from_environment,
    from_texts,
    is_configured,
    parse_headers,
)
from k8s_tracing.errors import ExportError


def test_defaults() -> None:
    expected = Endpoint(protocol=HTTP, url="http://localhost:4318/v1/traces")
    assert from_environment({}) == expected


def test_defaults_of_grpc() -> None:
    endpoint = from_environment({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert endpoint == Endpoint(protocol=GRPC, url="http://localhost:4317")


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"ENDPOINT": "http://jaeger:4318"}, "http://jaeger:4318/v1/traces"),
        ({"ENDPOINT": "http://jaeger:4318/"}, "http://jaeger:4318/v1/traces"),
        ({"ENDPOINT": "https://host/prefix"}, "https://host/prefix/v1/traces"),
        ({"TRACES_ENDPOINT": "http://jaeger:4318/mine"}, "http://jaeger:4318/mine"),
        ({"TRACES_ENDPOINT": "http://jaeger:4318"}, "http://jaeger:4318/"),
        ({"TRACES_ENDPOINT": "http://a/x", "ENDPOINT": "http://b"}, "http://a/x"),
        ({"ENDPOINT": "http://jaeger:4317", "PROTOCOL": "grpc"}, "http://jaeger:4317"),
        ({"ENDPOINT": "jaeger:4317", "TRACES_PROTOCOL": "grpc"}, "jaeger:4317"),
    ],
)
def test_where_requests_go(environ: dict[str, str], url: str) -> None:
    variables = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in environ.items()}
    assert from_environment(variables).url == url
    assert is_configured(variables)


def test_an_option_goes_before_the_variables() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a/x",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    endpoint = from_environment(environ, url="http://b:4318", protocol=HTTP)
    assert (endpoint.url, endpoint.protocol) == ("http://b:4318/v1/traces", HTTP)


def test_an_option_may_be_the_whole_url() -> None:
    assert from_environment({}, url="http://b/v1/traces").url == "http://b/v1/traces"


def test_the_rest(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "b=2",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(ca),
    }
    endpoint = from_environment(environ)
    assert endpoint.headers == {"b": "2"}
    assert endpoint.timeout_s == 2.5
    assert endpoint.gzip
    assert endpoint.insecure
    assert endpoint.certificate == ca


@pytest.mark.parametrize(
    ("url", "gzip"),
    [
        ("http://localhost:4318", False),
        ("http://127.0.0.1:4318", False),
        ("http://[::1]:4318", False),
        ("http://10.0.0.1:4318", True),
        ("http://collector.example:4318", True),
    ],
)
def test_only_other_machines_get_compressed_requests(url: str, gzip: bool) -> None:
    assert from_environment({}, url=url).gzip is gzip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROTOCOL", "http/json"),
        ("ENDPOINT", "jaeger:4318"),
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "0"),
        ("COMPRESSION", "zstd"),
        ("CERTIFICATE", "/does/not/exist"),
    ],
)
def test_what_cannot_be_is_said(name: str, value: str) -> None:
    with pytest.raises(ExportError):
        from_environment({f"OTEL_EXPORTER_OTLP_{name}": value})


def test_headers() -> None:
    assert parse_headers(" Authorization = Bearer%20x ,b=2=3,") == {
        "authorization": "Bearer x",
        "b": "2=3",
    }


def test_a_broken_header_is_ignored_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert parse_headers("secret,b=2") == {"b": "2"}
    assert "secret" not in caplog.text
    assert "entry 1" in caplog.text


def test_secrets_do_not_show() -> None:
    endpoint = from_environment(
        {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret"}, url="http://me:secret@host:4318"
    )
    assert endpoint.address == "http://host:4318/v1/traces"
    assert "secret" not in repr(endpoint)


def test_several_receivers(tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("api-key=b%20c\ntenant=x\n")
    authority = tmp_path / "ca.pem"
    authority.touch()
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=for-the-first",
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": str(authority),
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority),
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
    }
    texts = [
        "http://a:4318",
        f"https://b/x,headers-file={headers},compression=gzip,timeout=500",
        "grpc://c:4317",
        f"grpcs://d:4317,certificate={authority}",
        "http://e:4317,protocol=grpc",
    ]
    a, b, c, d, e = from_texts(texts, environ)
    assert [each.protocol for each in (a, b, c, d, e)] == [HTTP, HTTP, GRPC, GRPC, GRPC]
    assert [each.url for each in (a, b)] == ["http://a:4318/v1/traces", "https://b/x/v1/traces"]
    assert [each.url for each in (c, d, e)] == ["http://c:4317", "https://d:4317", "http://e:4317"]
    # Credentials of one are not shown to another.
    assert a.headers == {"authorization": "for-the-first"}
    assert a.client_key == authority
    assert b.headers == {"api-key": "b c", "tenant": "x"}
    assert [each.headers for each in (c, d, e)] == [{}, {}, {}]
    assert [each.client_key for each in (b, c, d, e)] == [None] * 4
    assert {each.certificate for each in (a, b, c, d, e)} == {authority}
    assert [each.gzip for each in (a, b)] == [False, True]
    assert b.timeout_s == 0.5


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["http://a", "http://a/"], "named twice"),
        (["http://a,token=x"], "'token' in an --endpoint is not known"),
        (["http://a,headers-file=/nowhere/at/all"], "cannot read the headers"),
        (["http://a,protocol=smoke"], "smoke"),
        (["a:4318"], "not a URL"),
    ],
)
def test_receivers_that_cannot_be(texts: list[str], said: str) -> None:
    with pytest.raises(ExportError, match=said):
        from_texts(texts, {})


def test_no_secret_is_in_a_name() -> None:
    (endpoint,) = from_texts(["https://me:word@host:4318/p?token=abc#frag"], {})
    assert endpoint.url == "https://me:word@host:4318/p/v1/traces?token=abc"
    assert endpoint.name == "https://host:4318/p/v1/traces (http/protobuf)"
    assert "abc" not in repr(endpoint)
