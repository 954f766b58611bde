"""Names from the API server, against a small one that lists and watches as the real one does, which is no test yet."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from k8s_tracing.dataplane import cluster as module
from k8s_tracing.dataplane.backends import packed
from k8s_tracing.dataplane.cluster import ClusterNames
from k8s_tracing.errors import K8sTracingError
from tests.support.wait import wait_for

END = {"type": "END"}


def service(name: str, address: str, port: int = 80, version: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": name, "resourceVersion": str(version)},
        "spec": {
            "clusterIP": address,
            "clusterIPs": [address],
            "ports": [{"name": "http", "port": port}],
        },
    }


def slice_(name: str, of: str, *addresses: str, version: int = 1) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "resourceVersion": str(version),
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": True},
                "nodeName": "node-1",
                "targetRef": {"kind": "Pod", "name": f"pod-{address}"},
            }
            for address in addresses
        ],
    }


class Api:
    """Lists in pages of one, and sends what is put into its queues as events."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {"services": [], "endpointslices": []}
        self.events: dict[str, queue.Queue[dict[str, Any]]] = {
            kind: queue.Queue() for kind in self.objects
        }
        self.lists = dict.fromkeys(self.objects, 0)
        self.watches: list[dict[str, list[str]]] = []
        self.status = 200
        self.tokens: set[str | None] = set()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.tokens.add(self.headers.get("Authorization"))
                address = urlsplit(self.path)
                kind, asked = address.path.rpartition("/")[2], parse_qs(address.query)
                self.send_response(api.status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                if api.status != 200:
                    self._write(b"")
                    return
                if "watch" in asked:
                    api.watches.append(asked)
                    while (event := api.events[kind].get()) is not END:
                        self._write(json.dumps(event).encode() + b"\n")
                    self._write(b"")
                    return
                at = int(asked.get("continue", ["0"])[0])
                api.lists[kind] += at == 0
                items = api.objects[kind]
                more = {"continue": str(at + 1)} if at + 1 < len(items) else {}
                page = {"metadata": {"resourceVersion": "10", **more}, "items": items[at : at + 1]}
                self._write(json.dumps(page).encode())
                self._write(b"")

            def _write(self, chunk: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Who watches goes away in the middle: that is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def send(self, kind: str, type_: str, content: dict[str, Any]) -> None:
        self.events[kind].put({"type": type_, "object": content})

    def close(self) -> None:
        for events in self.events.values():
            events.put(END)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


@pytest.fixture
def names(api: Api, tmp_path: Path) -> ClusterNames:
    (tmp_path / "token").write_text("secret\n")
    return ClusterNames(api.url, tmp_path, retry_s=(0.01, 0.02))


def said(names: ClusterNames, address: str, port: int = 80) -> tuple[str, int] | None:
    found = names.service(address, port)
    return found and (found.name, found.attributes["k8s_tracing.service.endpoints"])


def test_what_is_listed_and_what_changes(api: Api, names: ClusterNames) -> None:
    api.objects["services"] = [service("web", "10.96.0.1"), service("db", "10.96.0.2", 5432)]
    api.objects["endpointslices"] = [
        slice_("web-1", "web", "10.0.0.1"),
        slice_("web-2", "web", "10.0.0.2"),
    ]
    with names:
        wait_for("the list", lambda: said(names, "10.96.0.1") == ("service default/web:http", 2))
        wait_for("its end", lambda: said(names, "10.96.0.2", 5432))
        assert endpoint(names, "10.0.0.2") == {
            "k8s.pod.name": "pod-10.0.0.2",
            "k8s.node.name": "node-1",
        }
        same = names.service("10.96.0.1", 80)
        api.send("endpointslices", "BOOKMARK", {"metadata": {"resourceVersion": "20"}})
        api.send("endpointslices", "MODIFIED", slice_("web-2", "web", "10.0.0.2", "10.0.0.3"))
        wait_for("three", lambda: said(names, "10.96.0.1") == ("service default/web:http", 3))
        assert names.service("10.96.0.1", 80) is not same
        api.send("endpointslices", "DELETED", slice_("web-1", "web"))
        wait_for("two", lambda: said(names, "10.96.0.1") == ("service default/web:http", 2))
        assert endpoint(names, "10.0.0.1") is None
        api.send("services", "DELETED", service("web", ""))
        wait_for("none", lambda: names.service("10.96.0.1", 80) is None)
        api.send("services", "ADDED", service("web", "10.96.0.9"))
        wait_for("again", lambda: said(names, "10.96.0.9") == ("service default/web:http", 2))
    assert api.tokens == {"Bearer secret"}
    assert api.lists == {"services": 1, "endpointslices": 1}


def test_a_port_of_udp_is_not_taken_for_that_of_tcp(api: Api, names: ClusterNames) -> None:
    dns = service("dns", "10.96.0.10")
    dns["spec"]["ports"] = [
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    with names:
        api.send("services", "ADDED", dns)
        wait_for("it", lambda: said(names, "10.96.0.10", 53))
    assert said(names, "10.96.0.10", 53) == ("service default/dns:dns-tcp", 0)


def test_a_watch_that_ends_goes_on_where_it_was(api: Api, names: ClusterNames) -> None:
    with names:
        api.send("services", "ADDED", service("web", "10.96.0.1", version=33))
        api.events["services"].put(END)
        wait_for("the next", lambda: any(w["resourceVersion"] == ["33"] for w in api.watches))
        assert said(names, "10.96.0.1") == ("service default/web:http", 0)
    assert api.lists["services"] == 1


def test_after_410_all_is_listed_anew(api: Api, names: ClusterNames) -> None:
    api.objects["services"] = [service("old", "10.96.0.1")]
    with names:
        wait_for("the list", lambda: said(names, "10.96.0.1"))
        api.objects["services"] = [service("new", "10.96.0.2")]
        api.send("services", "ERROR", {"code": 410, "message": "too old"})
        wait_for("the new one", lambda: said(names, "10.96.0.2"))
        wait_for("without the old one", lambda: names.service("10.96.0.1", 80) is None)


def test_an_endpoint_of_two_slices_stays_with_the_other(api: Api, names: ClusterNames) -> None:
    api.objects["services"] = [service("web", "10.96.0.1")]
    api.objects["endpointslices"] = [
        slice_("web-1", "web", "10.0.0.1"),
        slice_("web-2", "web", "10.0.0.1", "10.0.0.2"),
    ]
    with names:
        wait_for("the list", lambda: said(names, "10.96.0.1") == ("service default/web:http", 2))
        api.send("endpointslices", "DELETED", slice_("web-2", "web"))
        wait_for("one", lambda: said(names, "10.96.0.1") == ("service default/web:http", 1))
        assert endpoint(names, "10.0.0.1")
        assert endpoint(names, "10.0.0.2") is None


def test_an_endpoint_of_two_services_stays_with_the_other(api: Api, names: ClusterNames) -> None:
    api.objects["services"] = [service("web", "10.96.0.1"), service("api", "10.96.0.2")]
    api.objects["endpointslices"] = [
        slice_("web-1", "web", "10.0.0.1"),
        slice_("api-1", "api", "10.0.0.1"),
    ]
    with names:
        wait_for("both", lambda: leading(names, "10.0.0.1") == {"web", "api"})
        api.send("services", "DELETED", service("web", ""))
        wait_for("one", lambda: leading(names, "10.0.0.1") == {"api"})
        api.send("endpointslices", "MODIFIED", slice_("web-1", "web", "10.0.0.2"))
        api.send("services", "ADDED", service("web", "10.96.0.3"))
        wait_for("another", lambda: leading(names, "10.0.0.2") == {"web"})
        assert leading(names, "10.0.0.1") == {"api"}
        assert endpoint(names, "10.0.0.1")


def test_a_slice_that_gets_another_service_leaves_the_first(api: Api, names: ClusterNames) -> None:
    api.objects["services"] = [service("web", "10.96.0.1"), service("api", "10.96.0.2")]
    api.objects["endpointslices"] = [slice_("one", "web", "10.0.0.1")]
    with names:
        wait_for("the list", lambda: leading(names, "10.0.0.1") == {"web"})
        api.send("endpointslices", "MODIFIED", slice_("one", "api", "10.0.0.1"))
        wait_for("the other", lambda: leading(names, "10.0.0.1") == {"api"})
        assert said(names, "10.96.0.1") == ("service default/web:http", 0)


def test_what_comes_again_as_it_was_is_no_news(api: Api, names: ClusterNames) -> None:
    api.objects["services"] = [service("web", "10.96.0.1")]
    api.objects["endpointslices"] = [slice_("web-1", "web", "10.0.0.1")]
    with names:
        wait_for("the list", lambda: leading(names, "10.0.0.1") == {"web"})
        follower = names.backends.follow()
        assert len(follower.take()) == 1
        api.send("services", "MODIFIED", service("web", "10.96.0.1", version=2))
        api.send("endpointslices", "MODIFIED", slice_("web-1", "web", "10.0.0.1", version=2))
        api.send("endpointslices", "ADDED", slice_("web-2", "web", "10.0.0.2"))
        wait_for("the last", lambda: leading(names, "10.0.0.2") == {"web"})
        [told] = follower.take()
        assert told.place == (packed("10.0.0.2"), 8080)


def endpoint(names: ClusterNames, address: str) -> dict[str, Any] | None:
    return names.backends.endpoint((packed(address) or b"", 8080))


def leading(names: ClusterNames, address: str) -> set[str]:
    """The Services that lead to an endpoint."""
    place = packed(address), 8080
    told = [each for each in names.backends.follow().take() if each.place == place]
    return {backend.name for each in told for backend, _ in each.backends}


def test_an_error_is_told_once_and_got_over(
    api: Api, names: ClusterNames, caplog: pytest.LogCaptureFixture
) -> None:
    api.status = 403
    api.objects["services"] = [service("web", "10.96.0.1")]
    with names:
        wait_for("both are told", lambda: caplog.text.count("cannot be read") == 2)
        api.status = 200
        wait_for("the list", lambda: said(names, "10.96.0.1"))
    assert caplog.text.count("cannot be read") == 2
    assert "secret" not in caplog.text


def test_there_is_a_limit(
    api: Api, names: ClusterNames, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_OBJECTS", 2)
    api.objects["services"] = [service(f"s{n}", f"10.96.0.{n}") for n in range(5)]
    with names:
        wait_for("the list", lambda: api.watches)
        wait_for("it is told", lambda: "more than 2 services" in caplog.text)
        assert names.service("10.96.0.0", 80)
        assert names.service("10.96.0.4", 80) is None


def test_headless_services_and_unready_endpoints_have_no_place(
    api: Api, names: ClusterNames
) -> None:
    unready = slice_("web-1", "web", "10.0.0.1")
    unready["endpoints"][0]["conditions"] = {"ready": False}
    api.objects = {
        "services": [service("h", "None"), service("web", "10.96.0.1")],
        "endpointslices": [unready, slice_("h-1", "h", "10.0.0.2")],
    }
    with names:
        wait_for("the list", lambda: len(api.watches) == 2)
        assert said(names, "10.96.0.1") == ("service default/web:http", 0)
        assert names.service("None", 80) is None
        assert endpoint(names, "10.0.0.1") is None
        assert leading(names, "10.0.0.2") == set()


def test_outside_of_a_pod_it_says_what_it_needs() -> None:
    with pytest.raises(K8sTracingError, match="may get, list and watch"):
        ClusterNames.in_cluster({})
