"""Two ingresses in front of one Service, on a node of network namespaces: one trace a request, every parent right."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from k8s_tracing.otlp import read_json_lines
from k8s_tracing.record import SpanRecord
from tests.support import proxies, service_net
from tests.support.service_net import (
    ENDPOINTS,
    NAMES,
    PODS,
    PORT,
    TARGET_PORT,
    VIRTUAL_IP,
    ServiceNet,
)
from tests.support.socket_lb import socket_lb
from tests.support.wait import wait_for

pytestmark = pytest.mark.alone

APP = str(Path(__file__).parent / "apps/service_app.py")
CLIENT = str(Path(__file__).parent / "apps/service_client.py")
LOG_TO = "10.244.0.1:5514"
OTLP_TO = "10.244.0.1:4318"
PATIENCE_S = 90.0

#: Both endpoints are up, then whoever connects to the Service does.
ASK_ONCE_IT_ANSWERS = " && ".join(
    [
        *(
            f"curl -s --retry 90 --retry-delay 1 --retry-connrefused http://{each}:{TARGET_PORT}/ > /dev/null"
            for each in ENDPOINTS
        ),
        'exec "$1" "$2" "$0" 3 older',
    ]
)
MS = 1_000_000


class Node:
    """An agent on the node, a HAProxy, an nginx and an Envoy in one pod, the Service's endpoints in two."""

    def __init__(
        self,
        net: ServiceNet,
        folder: Path,
        stack: ExitStack,
        endpoints_env: dict[str, str] | None,  # None: others have started them
        kinds: tuple[str, ...] = ("haproxy", "nginx", "envoy"),
    ) -> None:
        self.net = net
        self.output = folder / "spans.jsonl"
        names = folder / "services.json"
        names.write_text(json.dumps({"services": NAMES}))
        env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        command = [sys.executable, "-m", "k8s_tracing", "agent", "--private", str(folder / "agent")]
        command += ["--output-file", str(self.output), "--ingress-udp", LOG_TO]
        command += ["--otlp-http", OTLP_TO]
        command += ["--services", str(names)]
        log = stack.enter_context((folder / "agent.log").open("wb"))
        self.agent = subprocess.Popen(net.command("node", *command), stderr=log, env=env)
        stack.callback(self.end)
        ready = folder / "agent/env.json"
        wait_for(
            "the agent is ready",
            lambda: ready.exists() or self.agent.poll() is not None,
            PATIENCE_S,
        )
        assert self.agent.poll() is None, (folder / "agent.log").read_text()
        env |= json.loads(ready.read_text())["environment"]
        self.env = env
        if endpoints_env is not None:
            stack.enter_context(service_net.processes(_serving(net), env={**env, **endpoints_env}))
        for address in ENDPOINTS:
            wait_for(
                f"{address} listens", lambda a=address: self.listens(a, TARGET_PORT), PATIENCE_S
            )
        self.ports = {
            kind: stack.enter_context(
                proxies.running(
                    kind,
                    f"{VIRTUAL_IP}:{PORT}",
                    OTLP_TO if kind == "envoy" else LOG_TO,
                    place=lambda command: net.command("client", *command),
                    listens_there=lambda port: self.listens("127.0.0.1", port),
                )
            ).port
            for kind in kinds
        }

    def listens(self, address: str, port: int) -> bool:
        def connects() -> bool:
            with socket.socket() as client:
                return client.connect_ex((address, port)) == 0

        return self.net.inside("client", connects)

    def ask(self, kind: str, numbers: range, *, connections: int) -> None:
        """Ask through a proxy for /NUMBER, over some connections at the same time."""

        def some(first: int) -> None:
            client = http.client.HTTPConnection("127.0.0.1", self.ports[kind], timeout=60)
            for number in numbers[first::connections]:
                client.request("GET", f"/{number}")
                assert client.getresponse().read() == b"ok"
            client.close()

        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(lambda n: self.net.inside("client", lambda: some(n)), range(connections)))

    def metrics(self) -> dict[str, float]:
        """The agent's, by their names without its prefix."""
        ready = json.loads((self.output.parent / "agent/env.json").read_text())
        text = self.net.run("node", "curl", "-s", f"{ready['health']}/metrics")
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name.removeprefix("k8s_tracing_agent_"): float(value) for name, value in pairs}

    def end(self) -> None:
        """End the agent in order."""
        if self.agent.poll() is None:
            self.agent.terminate()
            assert self.agent.wait(PATIENCE_S) == 0

    def sent(self) -> list[SpanRecord]:
        """All that the agent sent until its end."""
        self.end()
        return read_json_lines(self.output)


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with (
        tempfile.TemporaryDirectory(prefix="k8st-") as name,
        service_net.service_net() as net,
        ExitStack() as stack,
    ):
        folder = Path(name)
        folder.chmod(0o711)
        yield Node(net, folder, stack, getattr(request, "param", {}))


def test_every_request_is_one_trace_through_ingress_service_and_endpoint(node: Node) -> None:
    requests = {"haproxy": range(2_500), "nginx": range(2_500, 5_000)}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda kind: node.ask(kind, requests[kind], connections=4), requests))
    spans = node.sent()
    traces: dict[str, dict[str, list[SpanRecord]]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, {}).setdefault(_role(span), []).append(span)
    assert len(traces) == 5_000
    endpoints = dict(zip(("web-one", "web-two"), ENDPOINTS, strict=True))
    seen: Counter[str] = Counter()
    services = linked_requests = 0
    connections = set()
    for roles in traces.values():
        assert {role: len(found) for role, found in roles.items() if role != "service"} == {
            "ingress server": 1,
            "ingress client": 1,
            "endpoint": 1,
        }
        (server,), (client,), (endpoint,) = (
            roles[role] for role in ("ingress server", "ingress client", "endpoint")
        )
        assert client.parent_span_id == server.span_id
        assert endpoint.parent_span_id == client.span_id
        assert endpoint.attributes["url.path"] == server.attributes["url.path"]
        _encloses(server, client, endpoint)
        kind = "haproxy" if "haproxy.frontend" in server.attributes else "nginx"
        number = int(str(server.attributes["url.path"]).removeprefix("/"))
        assert number in requests[kind]
        seen[kind] += 1
        for service in roles.get("service", ()):
            services += 1
            assert service.parent_span_id == client.span_id
            assert service.name == "service default/web:http"
            assert service.attributes["k8s_tracing.service.endpoints"] == 2
            assert service.attributes["network.peer.address"] == endpoints[endpoint.service_name]
            assert service.attributes["source.address"] == PODS["client"]
            assert service.attributes["source.port"] == endpoint.attributes["network.peer.port"]
            assert endpoint.links == ()
        connections.add(endpoint.attributes["network.peer.port"])
        # A request that passes before the one that opened its connection is known has no link.
        for link in endpoint.links:
            linked_requests += 1
            opened = traces[link.trace_id]["service"]
            [linked] = [service for service in opened if service.span_id == link.span_id]
            assert linked.attributes["source.port"] == endpoint.attributes["network.peer.port"]
    assert seen == {"haproxy": 2_500, "nginx": 2_500}
    assert services == len(connections)
    assert linked_requests > 2_500


def _encloses(server: SpanRecord, client: SpanRecord, endpoint: SpanRecord) -> None:
    # Of the kernel's clock and of LTTng's. A SERVER span may end after its answer has arrived: its thread goes on when
    # it is its turn.
    slack_ns = 2 * MS
    assert server.start_time_ns <= client.start_time_ns <= endpoint.start_time_ns + slack_ns
    assert endpoint.start_time_ns <= client.end_time_ns + slack_ns
    assert client.end_time_ns <= server.end_time_ns


def _role(span: SpanRecord) -> str:
    if span.scope_name == "k8s_tracing.service":
        return "service"
    if span.scope_name == "k8s_tracing.ingress":
        return f"ingress {span.kind.lower()}"
    if span.service_name == "ingress":
        return f"envoy {span.kind.lower()}"
    return "endpoint"


@pytest.mark.parametrize("node", [{"OTEL_SDK_DISABLED": "true"}], indirect=True)
def test_a_callee_that_is_not_traced_is_joined_by_its_caller_alone(node: Node) -> None:
    url = f"http://{VIRTUAL_IP}:{PORT}/"
    command = node.net.command("client", sys.executable, CLIENT, url, "10")
    subprocess.run(command, env=node.env, check=True, timeout=PATIENCE_S)
    spans = node.sent()
    [service] = [span for span in spans if span.scope_name == "k8s_tracing.service"]
    clients = sorted(
        (span for span in spans if span.kind == "CLIENT"), key=lambda span: span.start_time_ns
    )
    assert len(spans) == 11
    assert len(clients) == 10
    assert service.parent_span_id == clients[0].span_id
    assert service.attributes["network.peer.address"] in ENDPOINTS
    for client in clients:
        assert client.attributes["network.local.address"] == PODS["client"]
        assert client.attributes["network.local.port"] == service.attributes["source.port"]
        assert client.attributes["network.peer.address"] == VIRTUAL_IP
        assert client.attributes["k8s_tracing.service.name"] == "default/web:http"
    assert [[link.span_id for link in client.links] for client in clients] == [
        [],
        *[[service.span_id]] * 9,
    ]


def test_what_a_socket_was_sent_to_is_told_as_far_as_it_shows_and_that_nobody_saw_it_chosen() -> (
    None
):
    with (
        tempfile.TemporaryDirectory(prefix="k8st-") as name,
        service_net.service_net() as net,
        ExitStack() as stack,
    ):
        folder = Path(name)
        folder.chmod(0o711)
        node = Node(net, folder, stack, {"OTEL_SDK_DISABLED": "true"}, kinds=())
        hosts = folder / "hosts"
        hosts.write_text(f"{VIRTUAL_IP} web.default.svc.cluster.local\n")
        with_hosts = ["unshare", "--mount", "sh", "-c"]
        with_hosts += ['mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]

        def ask(host: str, path: str, before: Sequence[str] = ()) -> None:
            url = f"http://{host}:{PORT}/{path}"
            command = [*before, *with_hosts, sys.executable, CLIENT, url, "3"]
            command = net.command("client", *command)
            subprocess.run(command, env=node.env, check=True, timeout=PATIENCE_S)

        service, endpoint = (VIRTUAL_IP, PORT), (ENDPOINTS[1], TARGET_PORT)
        with socket_lb(service, endpoint) as in_cgroup:
            ask("web.default.svc.cluster.local", "by-name", in_cgroup)
            ask(VIRTUAL_IP, "by-address", in_cgroup)
        with socket_lb(service, endpoint, hides=True) as in_cgroup:
            ask(VIRTUAL_IP, "hidden", in_cgroup)
        ask("web.default.svc.cluster.local", "kube-proxy")
        wait_for(
            "the requests are counted",
            lambda: node.metrics()["service_unobserved_total"] == 9,
            PATIENCE_S,
        )
        assert node.metrics()["service_questions_total"] == 1
        spans = node.sent()
    [of_kube_proxy] = [span for span in spans if span.scope_name == "k8s_tracing.service"]
    by_path: dict[str, list[SpanRecord]] = {}
    for span in spans:
        if span.kind == "CLIENT":
            by_path.setdefault(str(span.attributes["url.full"]).rpartition("/")[2], []).append(span)
    assert {path: len(found) for path, found in by_path.items()} == dict.fromkeys(
        ("by-name", "by-address", "hidden", "kube-proxy"), 3
    )
    told = {
        "k8s_tracing.service.name": "default/web:http",
        "k8s_tracing.service.decision": "not observed",
        "k8s_tracing.service.pod.name": "two",
        "k8s_tracing.service.node.name": "node-1",
    }
    for span in by_path["by-name"] + by_path["by-address"]:
        assert _of_service(span) == told
        assert span.attributes["network.peer.address"] == endpoint[0]
        assert span.attributes["network.peer.port"] == endpoint[1]
        assert span.links == ()
    for span in by_path["hidden"]:
        assert _of_service(span) == {
            "k8s_tracing.service.name": "default/web:http",
            "k8s_tracing.service.decision": "not observed",
        }
        assert span.attributes["network.peer.address"] == VIRTUAL_IP
        assert span.links == ()
    for span in by_path["kube-proxy"]:
        assert _of_service(span) == {"k8s_tracing.service.name": "default/web:http"}
    assert of_kube_proxy.parent_span_id in {span.span_id for span in by_path["kube-proxy"]}


def test_a_connection_that_is_older_than_the_agent_was_seen_by_the_kernel_all_the_same() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="k8st-") as name,
        service_net.service_net() as net,
        ExitStack() as stack,
    ):
        folder = Path(name)
        folder.chmod(0o711)
        env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        stack.enter_context(
            service_net.processes(_serving(net), env={**env, "OTEL_SDK_DISABLED": "true"})
        )
        url = f"http://{VIRTUAL_IP}:{PORT}/"
        client = stack.enter_context(
            subprocess.Popen(
                net.command("client", "sh", "-c", ASK_ONCE_IT_ANSWERS, url, sys.executable, CLIENT),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=env,
            )
        )
        assert client.stdout is not None
        assert client.stdout.readline() == b"open\n"
        node = Node(net, folder, stack, None, kinds=())
        client.communicate(json.dumps(node.env).encode() + b"\n", timeout=PATIENCE_S)
        assert client.returncode == 0
        wait_for(
            "the requests are counted",
            lambda: node.metrics()["service_untold_total"] == 3,
            PATIENCE_S,
        )
        counted = node.metrics()
        spans = node.sent()
    assert counted["service_unobserved_total"] == counted["service_unanswered_total"] == 0
    assert counted["service_questions_total"] == 1
    assert len(spans) == 3  # and none of the Service, whose decision had been before
    [pod] = {str(span.attributes["k8s_tracing.service.pod.name"]) for span in spans}
    assert pod in ("one", "two")
    for span in spans:
        assert span.kind == "CLIENT"
        assert span.attributes["network.peer.address"] == VIRTUAL_IP
        assert span.links == ()
        assert _of_service(span) == {
            "k8s_tracing.service.name": "default/web:http",
            "k8s_tracing.service.pod.name": pod,
            "k8s_tracing.service.node.name": "node-1",
        }


def _serving(net: ServiceNet) -> list[list[str]]:
    """Commands of the Service's endpoints."""
    return [
        net.command(pod, sys.executable, APP, f"web-{pod}", address, str(TARGET_PORT))
        for pod, address in zip(("one", "two"), ENDPOINTS, strict=True)
    ]


def _of_service(span: SpanRecord) -> dict[str, Any]:
    return {
        key: value
        for key, value in span.attributes.items()
        if key.startswith("k8s_tracing.service.")
    }


def test_envoys_own_spans_come_through_the_agent_and_are_joined(node: Node) -> None:
    # One at a time: of two, one may wait for a connection, be given the other one's, and the new one is nobody's then.
    node.ask("envoy", range(100), connections=1)
    node.ask("envoy", range(100, 200), connections=1)
    # It sends the last of them after 5 s.
    wait_for("Envoy's spans", lambda: node.metrics()["otlp_spans_total"] == 400, PATIENCE_S)
    traces: dict[str, dict[str, list[SpanRecord]]] = {}
    for span in node.sent():
        traces.setdefault(span.trace_id, {}).setdefault(_role(span), []).append(span)
    assert len(traces) == 200
    ports = set()
    services = []
    for roles in traces.values():
        services += roles.pop("service", [])
        assert {role: len(found) for role, found in roles.items()} == {
            "envoy server": 1,
            "envoy client": 1,
            "endpoint": 1,
        }
        ((server,), (client,), (endpoint,)) = (
            roles[role] for role in ("envoy server", "envoy client", "endpoint")
        )
        assert client.parent_span_id == server.span_id
        assert endpoint.parent_span_id == client.span_id
        assert server.service_name == client.service_name == "ingress"
        # Envoy's attributes are texts.
        assert client.attributes["network.local.address"] == PODS["client"]
        port = int(str(client.attributes["network.local.port"]))
        assert port == endpoint.attributes["network.peer.port"]
        assert client.attributes["k8s_tracing.service.name"] == "default/web:http"
        ports.add(port)
    # Each connection has a span, below a request that used it.
    assert {service.attributes["source.port"] for service in services} == ports
    assert len(services) == len(ports)
    for service in services:
        [client] = traces[service.trace_id]["envoy client"]
        assert service.parent_span_id == client.span_id
        assert (
            int(str(client.attributes["network.local.port"])) == service.attributes["source.port"]
        )


def test_the_metrics_count_what_was_seen(node: Node) -> None:
    node.ask("haproxy", range(20), connections=2)
    wait_for(
        "the lines are counted",
        lambda: node.metrics().get('ingress_lines_total{outcome="span"}') == 20,
        PATIENCE_S,
    )
    found = wait_for(
        "the requests are joined",
        lambda: m if (m := node.metrics())["service_reused_total"] else None,
        PATIENCE_S,
    )
    assert found['service_joins_total{outcome="joined"}'] >= 1
    assert found["service_ambiguous_total"] == found["conntrack_overflows_total"] == 0
