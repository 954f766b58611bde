from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from k8s_tracing.cgroup import (
    CpuStat,
    cpu_folders,
    has_quota,
    own_cpu_folder,
    parse_cpu_stat,
    read_cpu_stat,
)

GOLDEN = Path(__file__).parents[1] / "golden/cgroup"


@pytest.mark.parametrize(
    ("name", "stat"),
    [
        ("v2-kubernetes", CpuStat(58_204_981_000, 41_872, 903, 61_402_115_000)),
        ("v2-without-controller", CpuStat(1_204_000)),
        ("v1", CpuStat(None, 1_880, 212, 17_044_822_119)),
    ],
)
def test_cpu_stat_is_read_in_nanoseconds_whatever_the_version(name: str, stat: CpuStat) -> None:
    assert parse_cpu_stat((GOLDEN / f"{name}.cpu.stat").read_text()) == stat


def mount(kind: str, mounted: str, place: str, options: str = "rw") -> str:
    return f"31 23 0:27 {mounted} {place} ro,nosuid - {kind} cgroup {options}"


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "folders"),
    [
        pytest.param(
            ["0::/"],
            [mount("cgroup2", "/", "/sys/fs/cgroup")],
            ["/sys/fs/cgroup"],
            id="v2, a container with a cgroup namespace",
        ),
        pytest.param(
            ["0::/kubepods.slice/pod1.slice/cri-1.scope"],
            [mount("cgroup2", "/", "/sys/fs/cgroup")],
            [
                "/sys/fs/cgroup/kubepods.slice/pod1.slice/cri-1.scope",
                "/sys/fs/cgroup/kubepods.slice/pod1.slice",
                "/sys/fs/cgroup/kubepods.slice",
                "/sys/fs/cgroup",
            ],
            id="v2, as the node sees it",
        ),
        pytest.param(
            ["0::/../../pod2/other"],
            [mount("cgroup2", "/", "/sys/fs/cgroup")],
            [],
            id="v2, outside of our cgroup namespace",
        ),
        pytest.param(
            ["3:cpu,cpuacct:/docker/1", "2:memory:/docker/1"],
            [
                mount("cgroup", "/docker/1", "/sys/fs/cgroup/memory", "rw,memory"),
                mount("cgroup", "/docker/1", "/sys/fs/cgroup/cpu,cpuacct", "rw,cpu,cpuacct"),
            ],
            ["/sys/fs/cgroup/cpu,cpuacct"],
            id="v1, a container without a cgroup namespace",
        ),
        pytest.param(
            ["1:cpu:/a", "0::/b"],
            [
                mount("cgroup2", "/", "/sys/fs/cgroup/unified"),
                mount("cgroup", "/", "/sys/fs/cgroup/cpu", "rw,cpu"),
            ],
            ["/sys/fs/cgroup/cpu/a", "/sys/fs/cgroup/cpu"],
            id="both: the controller is version 1's",
        ),
        pytest.param(["1:cpu:/a"], [], [], id="nothing is mounted"),
        pytest.param(["what"], ["is", "this - "], [], id="unreadable"),
    ],
)
def test_a_cgroup_s_folders(cgroup: list[str], mountinfo: list[str], folders: list[str]) -> None:
    assert cpu_folders(cgroup, mountinfo) == [PurePosixPath(each) for each in folders]


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"


def test_the_nearest_cgroup_with_a_quota_is_the_one_that_throttles(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod/box/init\n",
        "proc/self/mountinfo": mount("cgroup2", "/", "/sys/fs/cgroup") + "\n",
        "sys/fs/cgroup/cpu.stat": V2,
        "sys/fs/cgroup/pod/cpu.stat": V2,
        "sys/fs/cgroup/pod/cpu.max": "400000 100000",
        "sys/fs/cgroup/pod/box/cpu.stat": V2,
        "sys/fs/cgroup/pod/box/cpu.max": "20000 100000",
        "sys/fs/cgroup/pod/box/init/cpu.stat": "usage_usec 5\n",
    }
    root = tree(tmp_path, files)
    box = tmp_path / "sys/fs/cgroup/pod/box"
    assert own_cpu_folder(root) == box
    (box / "cpu.max").write_text("max 100000")
    assert own_cpu_folder(root) == box.parent


def test_without_a_quota_it_is_the_process_s_own(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": mount("cgroup2", "/", "/sys/fs/cgroup") + "\n",
        "sys/fs/cgroup/cpu.stat": V2,
    }
    assert own_cpu_folder(tree(tmp_path, files)) == tmp_path / "sys/fs/cgroup"


def test_without_cgroups_there_is_none(tmp_path: Path) -> None:
    assert own_cpu_folder(tmp_path) is None


@pytest.mark.parametrize("usage", ["cpu,cpuacct/box/cpuacct.usage", "cpuacct/box/cpuacct.usage"])
def test_version_1_s_usage_is_another_controller_s(tmp_path: Path, usage: str) -> None:
    folder = "cpu,cpuacct/box" if usage.startswith("cpu,") else "cpu/box"
    stat = (GOLDEN / "v1.cpu.stat").read_text()
    tree(tmp_path, {f"{folder}/cpu.stat": stat, usage: "123456\n"})
    read = read_cpu_stat(tmp_path / folder)
    assert read == CpuStat(123_456, 1_880, 212, 17_044_822_119)


def test_a_cgroup_that_is_gone_has_no_figures(tmp_path: Path) -> None:
    assert read_cpu_stat(tmp_path / "gone") is None


@pytest.mark.parametrize(
    ("name", "text", "limited"),
    [
        ("cpu.max", "20000 100000\n", True),
        ("cpu.max", "max 100000\n", False),
        ("cpu.cfs_quota_us", "20000\n", True),
        ("cpu.cfs_quota_us", "-1\n", False),
        ("cpu.cfs_quota_us", "", False),
    ],
)
def test_a_quota_is_known_by_its_file(tmp_path: Path, name: str, text: str, limited: bool) -> None:
    (tmp_path / name).write_text(text)
    assert has_quota(tmp_path) is limited
