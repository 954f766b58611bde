import os
from pathlib import Path

import pytest

from k8s_tracing import resource

ID = "0123456789abcdef" * 4


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / "proc/self" / name).write_text(text)


@pytest.mark.parametrize(
    "line",
    [
        f"4:cpu,cpuacct:/docker/{ID}",
        f"0::/system.slice/docker-{ID}.scope",
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-pod1_2.slice/cri-containerd-{ID}.scope",
        f"0::/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:{ID}",
        f"11:memory:/kubepods/burstable/pod0123/{ID}",
    ],
)
def test_container_id_from_cgroup(root: Path, line: str) -> None:
    write(root, "cgroup", line + "\n")
    assert resource.container_id(root) == ID


@pytest.mark.parametrize(
    "line",
    [
        "0::/user.slice/user-1000.slice/session-2.scope",
        "0::/user.slice/user@1000.service/app.slice/app-gnome-x-1234.scope",
        "0::/",
        f"0::/{ID}0",
    ],
)
def test_other_cgroups_are_no_containers(root: Path, line: str) -> None:
    write(root, "cgroup", line + "\n")
    assert resource.container_id(root) is None


MOUNT = f"500 400 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/sda1 rw"


def test_container_id_from_the_mounted_hostname_under_a_cgroup_namespace(root: Path) -> None:
    write(root, "cgroup", "0::/\n")
    write(root, "mountinfo", MOUNT + "\n")
    assert resource.container_id(root) == ID


def test_in_kubernetes_the_mounted_hostname_is_the_sandbox_and_not_the_container(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, "cgroup", "0::/\n")
    kubelet = "501 400 8:1 /var/lib/kubelet/pods/1-2/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw"
    write(root, "mountinfo", MOUNT + "\n" + kubelet + "\n")
    assert resource.container_id(root) is None
    write(root, "mountinfo", MOUNT + "\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert resource.container_id(root) is None


def test_what_the_user_gives_wins(root: Path) -> None:
    found = resource.detect("shop", {"host.name": "mine", "service.name": "other"}, root)
    assert found["host.name"] == "mine"
    assert found["service.name"] == "shop"
    assert found["process.pid"] == os.getpid()


def test_a_service_without_a_name_is_unknown(root: Path) -> None:
    assert str(resource.detect(None, {}, root)["service.name"]).startswith("unknown_service:python")
