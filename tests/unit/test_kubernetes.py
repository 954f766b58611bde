"""Identity in Kubernetes, on /proc files as each runtime leaves them: tests/golden/proc/*/."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from k8s_tracing import kubernetes

GOLDEN = Path(__file__).parents[1] / "golden" / "proc"
CASES = sorted(path.name for path in GOLDEN.iterdir())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_proc_files(root: Path, case: str) -> None:
    shutil.copytree(GOLDEN / case, root / "proc/self", dirs_exist_ok=True)
    assert json.loads((GOLDEN / case / "expect.json").read_text()) == {
        "inside": kubernetes.is_inside({}, root),
        "pod": kubernetes.pod_uid(root),
        "container": kubernetes.container_id({}, root),
    }


def test_the_sandbox_is_not_taken_for_the_container_when_only_a_variable_tells(root: Path) -> None:
    shutil.copytree(GOLDEN / "docker-cgroup-namespace", root / "proc/self", dirs_exist_ok=True)
    assert kubernetes.container_id({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, root) is None


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert kubernetes.identity({}, tmp_path) == {}
    assert kubernetes.container_id({}, tmp_path) is None


OPERATOR = {
    "OTEL_RESOURCE_ATTRIBUTES_POD_NAME": "cart-7",
    "OTEL_RESOURCE_ATTRIBUTES_POD_UID": "u-7",
    "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME": "node-1",
    "OTEL_POD_IP": "10.1.2.3",
    "OTEL_NODE_IP": "192.0.2.1",
}
PLAIN = {
    "POD_NAME": "plain",
    "POD_NAMESPACE": "shop",
    "POD_UID": "plain-uid",
    "POD_IP": "10.9.9.9",
    "NODE_NAME": "plain-node",
    "CONTAINER_NAME": "cart",
}


def test_the_operators_variables_go_before_the_usual_ones(root: Path) -> None:
    environ = {**PLAIN, **OPERATOR, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert kubernetes.identity(environ, root) == {
        "k8s.pod.name": "cart-7",
        "k8s.pod.uid": "u-7",
        "k8s.pod.ip": "10.1.2.3",
        "k8s.namespace.name": "shop",
        "k8s.node.name": "node-1",
        "k8s.container.name": "cart",
    }


def test_the_usual_variables_mean_this_only_in_a_pod(root: Path) -> None:
    assert kubernetes.identity(PLAIN, root) == {}
    found = kubernetes.identity({**PLAIN, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, root)
    assert found["k8s.pod.name"] == "plain"


def test_an_empty_variable_is_none(root: Path) -> None:
    shutil.copytree(GOLDEN / "kubernetes-kind", root / "proc/self", dirs_exist_ok=True)
    assert list(kubernetes.identity({"POD_NAME": "", "POD_UID": " "}, root)) == ["k8s.pod.uid"]
