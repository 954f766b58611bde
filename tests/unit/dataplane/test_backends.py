"""Who leads where: followers are told of what there is, of what changes, and of nothing else."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from k8s_tracing.dataplane import backends as module
from k8s_tracing.dataplane.backends import Backend, Backends, Follower, Place, packed

ONE, TWO = ("10.244.0.11", 8080), ("10.244.0.12", 8080)


def route(port: int, *places: tuple[str, int]) -> tuple[Backend, list[tuple[str, int, Any]]]:
    said = Backend("shop", "web", bytes(16), port, {}, {})
    return said, [(*place, {"k8s.pod.name": place[0]}) for place in places]


def place(address: str, port: int) -> Place:
    return packed(address) or b"", port


def told(follower: Follower) -> dict[tuple[str, int], list[tuple[int, bool]]]:
    places = {place(address, port): (address, port) for address, port in (ONE, TWO)}
    return {
        places[each.place]: [(backend.port, is_only_one) for backend, is_only_one in each.backends]
        for each in follower.take()
    }


def test_a_follower_is_told_of_what_there_is_and_then_of_what_changes() -> None:
    backends = Backends()
    backends.put("shop", "web", [route(80, ONE, TWO)])
    follower = backends.follow()
    assert told(follower) == {ONE: [(80, True)], TWO: [(80, True)]}
    assert told(follower) == {}
    backends.put("shop", "web", [route(80, ONE, TWO)])
    assert told(follower) == {}
    backends.put("shop", "web", [route(80, TWO), route(81, TWO)])
    assert told(follower) == {ONE: [], TWO: [(80, True), (81, True)]}
    backends.remove("shop", "web")
    assert told(follower) == {TWO: []}


def test_an_endpoint_of_two_services_stays_that_of_the_other() -> None:
    backends = Backends()
    backends.put("shop", "web", [route(80, ONE)])
    backends.put("shop", "api", [(route(90)[0]._replace(name="api"), route(90, ONE)[1])])
    follower = backends.follow()
    assert told(follower) == {ONE: [(80, True), (90, True)]}
    backends.remove("shop", "web")
    assert told(follower) == {ONE: [(90, True)]}
    assert backends.endpoint(place(*ONE)) == {"k8s.pod.name": ONE[0]}


def test_a_name_in_a_second_namespace_is_news_of_the_first() -> None:
    backends = Backends()
    backends.put("shop", "web", [route(80, ONE)])
    follower = backends.follow()
    told(follower)
    for there, is_only_one in ((True, False), (False, True)):
        (backends.put if there else backends.remove)("test", "web")
        assert told(follower) == {ONE: [(80, is_only_one)]}
    backends.put("test", "other")
    backends.remove("test", "nobody")
    assert told(follower) == {}


def test_what_did_not_change_is_the_same_object() -> None:
    backends = Backends()
    backends.put("shop", "web", [route(80, ONE)])
    before = backends.endpoint(place(*ONE))
    backends.put("shop", "web", [route(80, ONE, TWO)])
    assert backends.endpoint(place(*ONE)) is before


def test_what_is_no_address_is_no_endpoint() -> None:
    backends = Backends()
    backends.put("shop", "web", [route(80, ("web-1.example.org", 8080), ("010.0.0.1", 1), ONE)])
    assert told(backends.follow()) == {ONE: [(80, True)]}
    assert backends.endpoint(place("web-1.example.org", 8080)) is None


def test_endpoints_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_ENDPOINTS", 1)
    backends = Backends()
    with caplog.at_level(logging.WARNING):
        backends.put("shop", "web", [route(80, ONE, TWO)])
        backends.put("shop", "web", [route(80, ONE, TWO)])
    assert caplog.messages == ["names: more than 1 endpoints; others have none"]
    assert told(backends.follow()) == {ONE: [(80, True)]}
    backends.put("shop", "web", [route(80, TWO)])
    assert told(backends.follow()) == {TWO: [(80, True)]}


def test_many_are_told_a_thousand_at_a_time() -> None:
    backends = Backends()
    places = [(f"10.1.{n // 250}.{n % 250}", 80) for n in range(2500)]
    backends.put("shop", "web", [route(80, *places)])
    follower = backends.follow()
    assert [len(follower.take()) for _ in range(4)] == [1000, 1000, 500, 0]


def test_a_follower_that_is_gone_costs_nothing() -> None:
    backends = Backends()
    follower = backends.follow()
    del follower
    assert len(backends._followers) == 0
