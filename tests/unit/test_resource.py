import os
from pathlib import Path

import pytest

from k8s_tracing import resource


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def test_what_the_user_gives_wins(root: Path) -> None:
    found = resource.detect("shop", {"host.name": "mine", "service.name": "other"}, root)
    assert found["host.name"] == "mine"
    assert found["service.name"] == "shop"
    assert found["process.pid"] == os.getpid()


def test_a_service_without_a_name_is_unknown(root: Path) -> None:
    assert str(resource.detect(None, {}, root)["service.name"]).startswith("unknown_service:python")


def test_the_library_says_who_made_the_spans(root: Path) -> None:
    found = resource.detect("shop", {}, root, {})
    assert found["telemetry.sdk.name"] == found["telemetry.distro.name"] == "k8s_tracing"
    assert found["telemetry.distro.version"] == resource.version()


def test_a_pod_is_described_by_the_user_then_variables_then_files(root: Path) -> None:
    uid = "5f8e3c1a-0d2b-4c6d-9e7f-a1b2c3d4e5f6"
    (root / "proc/self/cgroup").write_text(f"0::/kubepods/burstable/pod{uid}/{'ab' * 32}\n")
    namespace = root / "var/run/secrets/kubernetes.io/serviceaccount/namespace"
    namespace.parent.mkdir(parents=True)
    namespace.write_text("from-file")
    environ = {"POD_NAME": "cart-7", "NODE_NAME": "node-1", "OTEL_POD_IP": "10.1.2.3"}
    found = resource.detect("shop", {"k8s.node.name": "mine"}, root, environ)
    assert {key: found[key] for key in found if key.startswith("k8s.")} == {
        "k8s.pod.name": "cart-7",
        "k8s.pod.uid": uid,
        "k8s.pod.ip": "10.1.2.3",
        "k8s.namespace.name": "from-file",
        "k8s.node.name": "mine",
    }
    assert found["container.id"] == "ab" * 32


def test_a_forked_child_is_another_instance_unless_the_user_named_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)
    named = resource.detect("shop", {"service.instance.id": "shop-0"})
    monkeypatch.setattr(os, "getpid", lambda: 8)
    assert resource.in_child(named) == {**named, "process.pid": 8}
    parent = resource.detect("shop", {})
    child = resource.in_child(parent)
    assert child["process.pid"] == 8
    assert child["service.instance.id"] != parent["service.instance.id"]
    assert set(child) == set(parent)
