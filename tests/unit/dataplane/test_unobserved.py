"""Requests that asked for a Service and whose sockets show an endpoint: nobody saw it chosen, and the span says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s_tracing.dataplane.flows import Join
from k8s_tracing.dataplane.names import StaticNames
from k8s_tracing.otlp import parse_request, to_request
from k8s_tracing.record import SpanRecord

T0 = 1_795_333_000_000_000_000
DECISION = "k8s_tracing.service.decision"
NAME = "k8s_tracing.service.name"


def service(
    name: str, namespace: str, *addresses: str, ports: tuple[int, ...] = (80,), to: Any = None
) -> dict[str, Any]:
    endpoints = [{"address": "10.244.0.11", "port": 8080, "pod": "web-1", "node": "n"}]
    return {
        "namespace": namespace,
        "name": name,
        "addresses": list(addresses),
        "ports": [
            {"name": f"p{port}", "port": port, "endpoints": endpoints if to is None else to}
            for port in ports
        ],
    }


WEB = service("web", "shop", "10.96.0.10", "fd00:96::10")


def asked(
    address: str | None = "web.shop",
    port: Any = 80,
    peer: tuple[str, int] = ("10.244.0.11", 8080),
    namespace: str | None = None,
    kind: str = "CLIENT",
    **more: Any,
) -> SpanRecord:
    attributes = {
        "network.peer.address": peer[0],
        "network.peer.port": peer[1],
        "network.local.address": "10.244.0.10",
        "network.local.port": 40000,
        "server.address": address,
        "server.port": port,
        **more,
    }
    return SpanRecord(
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id=f"{1:016x}",
        name="GET",
        kind=kind,
        start_time_ns=T0,
        end_time_ns=T0 + 1000,
        attributes={key: value for key, value in attributes.items() if value is not None},
        resource={"service.name": "shop"}
        | ({"k8s.namespace.name": namespace} if namespace else {}),
    )


def passed(span: SpanRecord, *services: dict[str, Any]) -> dict[str, Any]:
    """What was added to the span's attributes."""
    with Join(StaticNames(list(services) or [WEB])) as join:
        [out] = parse_request(join.pass_on(to_request([span]))[0])
        added = {key: out.attributes[key] for key in out.attributes if key not in span.attributes}
        assert join.stats.unobserved == (1 if added else 0)
    assert {key: out.attributes[key] for key in span.attributes} == dict(span.attributes)
    return added


def test_the_span_gets_the_service_and_the_endpoint_and_says_that_nobody_saw_the_decision() -> None:
    assert passed(asked()) == {
        NAME: "shop/web:p80",
        DECISION: "not observed",
        "k8s_tracing.service.pod.name": "web-1",
        "k8s_tracing.service.node.name": "n",
    }


@pytest.mark.parametrize(
    "address",
    [
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
        "Web.SHOP.svc.Cluster.local",
        "10.96.0.10",
        "fd00:96::10",
        "fd00:0096:0::10",
    ],
)
def test_a_service_is_asked_for_by_its_names_and_virtual_ips(address: str) -> None:
    assert passed(asked(address))[DECISION] == "not observed"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "we",
        "webs.shop",
        "web.",
        "web.test",
        "web.shop.",
        "web.shopping",
        "web.shop.sv",
        "web.shop.svcx",
        "web.shop.svc.cluster.localhost",
        "web.shop.example.org",
        "10.96.0.11",
        "10.244.0.11",
        "fd00:96::11",
        None,
    ],
)
def test_what_else_is_asked_for_is_not_the_service(address: str | None) -> None:
    assert passed(asked(address)) == {}


@pytest.mark.parametrize("port", [80, "80", None])
def test_a_port_that_fits_or_is_not_told(port: Any) -> None:
    assert passed(asked(port=port))[NAME] == "shop/web:p80"


@pytest.mark.parametrize("port", [8080, "8080", 443])
def test_another_port_is_not_the_services(port: Any) -> None:
    assert passed(asked(port=port)) == {}


def test_the_port_tells_two_ports_with_one_endpoint_apart() -> None:
    both = service("web", "shop", "10.96.0.10", ports=(80, 8000))
    assert passed(asked(port=8000), both)[NAME] == "shop/web:p8000"
    assert passed(asked(port=None), both) == {}


@pytest.mark.parametrize(
    "peer", [("10.96.0.10", 80), ("10.244.0.11", 80), ("10.244.0.12", 8080), ("::1", 8080)]
)
def test_a_peer_that_is_no_endpoint_proves_nothing(peer: tuple[str, int]) -> None:
    """With kube-proxy a client's socket shows the virtual IP; a hook of getpeername() may show it as well."""
    assert passed(asked(peer=peer)) == {}
    assert passed(asked("10.96.0.10", peer=peer)) == {}


def test_clients_of_a_headless_service_choose_themselves() -> None:
    assert passed(asked(), service("web", "shop")) == {}


def test_a_short_name_is_of_the_callers_namespace() -> None:
    test = service("web", "test", "10.96.0.20", to=[])
    assert passed(asked("web", namespace="shop"), WEB, test)[NAME] == "shop/web:p80"
    assert passed(asked("web", namespace="test"), WEB, test) == {}
    assert passed(asked("web", namespace="other"), WEB) == {}
    assert passed(asked("WEB", namespace="shop"))[NAME] == "shop/web:p80"


def test_a_short_name_from_anywhere_has_to_be_the_only_one() -> None:
    assert passed(asked("web"), WEB)[NAME] == "shop/web:p80"
    assert passed(asked("web"), WEB, service("web", "test", "10.96.0.20", to=[])) == {}
    assert passed(asked("web"), WEB, service("web", "test")) == {}  # a headless one has it, too


def test_of_two_services_with_one_endpoint_it_is_the_one_that_was_asked_for() -> None:
    api = service("api", "shop", "10.96.0.30")
    assert passed(asked("web.shop"), WEB, api)[NAME] == "shop/web:p80"
    assert passed(asked("10.96.0.30"), WEB, api)[NAME] == "shop/api:p80"


def test_ipv6() -> None:
    six = service("web", "shop", "fd00:96::10", to=[{"address": "fd00::11", "port": 8080}])
    peer = ("fd00::11", 8080)
    assert passed(asked("fd00:96::10", peer=peer), six)[DECISION] == "not observed"
    assert passed(asked("web.shop", peer=peer), six)[DECISION] == "not observed"
    assert passed(asked("web.shop", peer=("fd00::12", 8080)), six) == {}


@pytest.mark.parametrize("key", ["url.full", "http.url"])
@pytest.mark.parametrize(
    ("url", "is_service"),
    [
        ("http://web.shop/", True),
        ("http://web.shop", True),
        ("http://web.shop:80?a=b:c@d", True),
        ("http://REDACTED:REDACTED@web.shop:80/x@y", True),
        ("http://[fd00:96::10]/", True),
        ("http://[fd00:96::10]:80/#:@", True),
        ("https://web.shop/", False),
        ("http://web.shop:8080/", False),
        ("http://web.shop:/", False),
        ("http://web.shop:123456/", False),
        ("http://shop/web.shop/", False),
        ("http://", False),
        ("http:///web.shop", False),
        ("web.shop", False),
        ("", False),
    ],
)
def test_where_the_server_is_not_told_its_url_tells_it(
    key: str, url: str, is_service: bool
) -> None:
    assert bool(passed(asked(None, None, **{key: url}))) is is_service


def test_the_server_that_is_told_comes_before_the_url() -> None:
    assert passed(asked("web.test", **{"url.full": "http://web.shop/"})) == {}


@pytest.mark.parametrize("kind", ["SERVER", "INTERNAL", "PRODUCER"])
def test_only_a_client_asks(kind: str) -> None:
    assert passed(asked(kind=kind)) == {}


def test_a_client_that_does_not_tell_its_own_address_is_no_worse_a_proof() -> None:
    bare = {"network.local.address": None, "network.local.port": None}
    assert passed(asked(**bare))[DECISION] == "not observed"


def test_an_endpoint_that_leaves_is_no_longer_the_services() -> None:
    names = StaticNames([WEB])
    body = to_request([asked()])
    with Join(names) as join:
        assert join.pass_on(body)[0] != body
        names.backends.put("shop", "web")
        assert join.pass_on(body)[0] == body
        assert join.stats.unobserved == 1


def test_a_name_that_is_no_longer_the_only_one_proves_nothing_until_it_is_again() -> None:
    names = StaticNames([WEB])
    body = to_request([asked("web")])
    with Join(names) as join:
        assert join.pass_on(body)[0] != body
        names.backends.put("test", "web")
        assert join.pass_on(body)[0] == body
        names.backends.remove("test", "web")
        assert join.pass_on(body)[0] != body


def test_many_spans_pass_beside_those_that_are_told() -> None:
    spans = [asked(peer=("10.244.0.11", 8080 if n % 3 == 0 else 1)) for n in range(300)]
    with Join(StaticNames([WEB])) as join:
        out = parse_request(join.pass_on(to_request(spans))[0])
        assert join.stats.unobserved == 100
    assert [DECISION in span.attributes for span in out] == [n % 3 == 0 for n in range(300)]


@given(st.data())
def test_a_damaged_request_does_no_harm(data: st.DataObject) -> None:
    url = {"url.full": "http://user:x@web.shop:80/"}
    body = bytearray(
        to_request([asked("web", namespace="shop"), asked(None, None, **url), asked("10.96.0.10")])
    )
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with Join(StaticNames([WEB])) as join:
        join.pass_on(bytes(body))
