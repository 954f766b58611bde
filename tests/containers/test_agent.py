"""The agent's container beside an unchanged application in a container of its own, which shares a socket's folder."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from tests.containers.conftest import Built
from tests.support.docker import Docker, DockerError
from tests.support.jaeger import JaegerQuery
from tests.support.wait import wait_for

pytestmark = pytest.mark.timeout(1500)

CONFINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
AGENT_UID, APPLICATION_UID = 10001, 20001
TIMEOUT_S = 60
POD_UID = "00000000-1111-2222-3333-444444444444"


@dataclass
class Node:
    """A machine with an agent, whose containers are on one network; and a Jaeger beside them."""

    docker: Docker
    images: Built

    def start_jaeger(self) -> None:
        self._run(
            "jaeger",
            self.images.jaeger,
            *CONFINED,
            "--user=10001",
            "--env=JAEGER_LISTEN_HOST=0.0.0.0",
        )

    def start_agent(self) -> None:
        self._run(
            "agent", self.images.agent, *CONFINED, "--pid=host", "--shm-size=256m",
            f"--tmpfs=/run/k8s-tracing:uid={AGENT_UID},gid={AGENT_UID},mode=0711",
            "--volume=sockets:/run/k8s-tracing-socket", "--volume=spool:/var/lib/k8s-tracing",
            command=("--endpoint", "http://jaeger:4318"),
        )  # fmt: skip
        self.wait_until_healthy()

    def start_application(self, name: str, *options: str) -> str:
        """Run an application that serves, known by its name; return the container's id."""
        found = self._run(
            name, self.images.application, *CONFINED, "--volume=sockets:/var/run/lttng:ro",
            "--env=OTEL_PYTHON_TRACER_PROVIDER=k8s_tracing", "--env=K8S_TRACING_BACKEND=lttng",
            f"--env=OTEL_SERVICE_NAME={name}", *options,
        )  # fmt: skip
        wait_for(name, lambda: self.get(name, "/none") is not None, TIMEOUT_S, interval_s=0.2)
        return found

    def wait_until_healthy(self) -> None:
        def is_healthy() -> bool:
            state = self.docker.run(
                "inspect", "--format={{.State.Status}} {{.State.Health.Status}}", "agent"
            )
            assert state.split()[0] == "running", self.docker.run("logs", "agent")
            return state.split()[1] == "healthy"

        wait_for("the agent", is_healthy, TIMEOUT_S, interval_s=0.5)

    def get(self, container: str, path: str) -> requests.Response | None:
        """Ask an application; None as long as it does not listen."""
        url = f"http://{self.address(container)}:8000{path}"
        with contextlib.suppress(requests.ConnectionError):
            return self.docker.inside(requests.get, url, timeout=TIMEOUT_S)
        return None

    def spans(self, service: str, name: str) -> list[dict[str, Any]]:
        """The spans of that name that Jaeger has by now."""
        query = JaegerQuery(f"http://{self.address('jaeger')}:16686")
        traces = self.docker.inside(query.find, service, 0, time.time_ns() + 10**12)
        found = [span for spans in traces.values() for span in spans]
        return [span for span in found if span["name"] == name]

    def wait_for_spans(self, service: str, name: str) -> list[dict[str, Any]]:
        """The spans of that name as soon as there is one."""
        what = f"{name} of {service} in Jaeger"
        return wait_for(what, lambda: self.spans(service, name), TIMEOUT_S, interval_s=0.5)

    def metric(self, name: str) -> float:
        """A figure of the agent, which serves it on its container's loopback interface."""
        code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:4319/metrics').read().decode())"
        lines = self.docker.run("exec", "agent", "python3", "-c", code).splitlines()
        [value] = [
            line.split()[1] for line in lines if line.startswith(f"k8s_tracing_agent_{name} ")
        ]
        return float(value)

    def address(self, container: str) -> str:
        return self.docker.run(
            "inspect", "--format={{.NetworkSettings.Networks.node.IPAddress}}", container
        ).strip()

    def status(self, container: str) -> dict[str, str]:
        """/proc/PID/status of a container's first process."""
        pid = self.docker.run("inspect", "--format={{.State.Pid}}", container).strip()
        text = (self.docker.proc / pid / "status").read_text()
        return {
            name: value.strip()
            for name, _, value in (line.partition(":") for line in text.splitlines())
        }

    def _run(self, name: str, image: str, *options: str, command: tuple[str, ...] = ()) -> str:
        words = ("run", "--detach", f"--name={name}", "--network=node", *options, image, *command)
        return self.docker.run(*words).strip()


@pytest.fixture(scope="module")
def node(docker: Docker, images: Built) -> Iterator[Node]:
    docker.run("network", "create", "node")
    node = Node(docker, images)
    try:
        node.start_jaeger()
        node.start_agent()
        yield node
    finally:
        containers = docker.run("ps", "--all", "--quiet").split()
        if containers:
            docker.run("rm", "--force", "--volumes", *containers)
        docker.run("volume", "rm", "--force", "sockets", "spool")
        # A container that is removed lets go of it a moment later.
        wait_for("the network's end", lambda: _is_removed(docker), TIMEOUT_S, interval_s=0.5)


def _is_removed(docker: Docker) -> bool:
    with contextlib.suppress(DockerError):
        docker.run("network", "rm", "node")
        return True
    return False


def test_a_request_is_a_trace(node: Node) -> None:
    container_id = node.start_application("shop")
    answer = node.get("shop", "/hello/ann")
    assert answer is not None
    # A PID namespace of its own, and another user than the agent's.
    assert answer.json() == {"hello": "ann", "pid": 1, "uid": APPLICATION_UID}
    [span] = node.wait_for_spans("shop", "GET /hello/{name}")
    assert span["kind"] in (2, "SPAN_KIND_SERVER")
    assert span["resource"]["container.id"] == container_id
    assert span["resource"]["service.name"] == "shop"


def test_root_in_a_container_is_recorded_too(node: Node) -> None:
    container_id = node.start_application("root", "--user=0")
    assert node.get("root", "/hello/ann") is not None
    [span] = node.wait_for_spans("root", "GET /hello/{name}")
    assert span["resource"]["container.id"] == container_id


def test_the_agent_has_no_privilege(node: Node) -> None:
    status = node.status("agent")
    assert set(status["Uid"].split()) == {str(AGENT_UID)}
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


def test_an_application_sees_the_socket_and_nothing_else_of_the_agent(node: Node) -> None:
    node.start_application("curious", "--user=0")
    files = node.docker.run("exec", "curious", "ls", "/var/run/lttng").split()
    assert [name.rstrip("0123456789") for name in files] == ["lttng-ust-sock-"]


def test_an_application_that_started_first_is_recorded_when_the_agent_comes(node: Node) -> None:
    node.docker.run("stop", "--time=60", "agent")
    assert node.docker.run("inspect", "--format={{.State.ExitCode}}", "agent").strip() == "0"
    node.start_application("early")
    node.docker.run("start", "agent")
    node.wait_until_healthy()

    def is_recorded() -> bool:
        answer = node.get("early", "/hello/ann")
        assert answer is not None
        return bool(node.spans("early", "GET /hello/{name}"))

    # liblttng-ust looks for a daemon every five seconds; what is asked before is not recorded.
    wait_for("a request that is recorded", is_recorded, TIMEOUT_S, interval_s=1)


def test_the_node_knows_better_than_a_process_which_container_it_is_in(node: Node) -> None:
    """Both are the first process of their PID namespaces, and run as the same user."""
    honest = node.start_application("honest")
    claims = f"container.id={honest},k8s.pod.uid={POD_UID},k8s.pod.name=other,deployment.environment.name=test"
    liar = node.start_application("liar", f"--env=OTEL_RESOURCE_ATTRIBUTES={claims}")
    for name in ("honest", "liar"):
        answer = node.get(name, "/hello/ann")
        assert answer is not None
        assert answer.json()["pid"] == 1
    [of_honest] = node.wait_for_spans("honest", "GET /hello/{name}")
    [of_liar] = node.wait_for_spans("liar", "GET /hello/{name}")
    assert of_honest["resource"]["container.id"] == honest
    assert of_liar["resource"]["container.id"] == liar
    assert of_liar["resource"]["deployment.environment.name"] == "test"
    assert not {name for name in of_liar["resource"] if name.startswith("k8s.")}
    assert node.metric("replaced_identities_total") == 1
    assert node.metric("ambiguous_identities_total") == 0


def test_a_container_that_is_killed_leaves_its_span_unfinished(node: Node) -> None:
    container_id = node.start_application("victim")
    request = threading.Thread(target=node.get, args=("victim", "/slow"))
    request.start()
    wait_for("the request", lambda: "begun" in node.docker.run("logs", "victim"), TIMEOUT_S)
    assert not node.spans("victim", "GET /slow")
    node.docker.run("kill", "--signal=KILL", "victim")
    request.join(TIMEOUT_S)
    [span] = node.wait_for_spans("victim", "GET /slow")
    assert span["attributes"]["k8s_tracing.unfinished"] is True
    assert span["resource"]["container.id"] == container_id
    assert node.docker.run("inspect", "--format={{.State.Running}}", "agent").strip() == "true"
