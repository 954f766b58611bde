"""The plan of the ring buffers: a budget, the CPUs and /dev/shm in, sizes out."""

import pytest

from k8s_tracing.agent.buffers import Buffers, plan_buffers
from k8s_tracing.errors import SessionError

MIB = 1 << 20
PLENTY = 1 << 40


def test_the_default_is_four_mebibytes_a_cpu() -> None:
    assert plan_buffers(cpus=2, shared_bytes=PLENTY) == Buffers("uid", 512 * 1024, 8)
    assert plan_buffers(cpus=64, shared_bytes=PLENTY).owner_bytes(64) == 256 * MIB


def test_a_process_of_its_own_gets_less() -> None:
    assert plan_buffers("pid", cpus=2, shared_bytes=PLENTY) == Buffers("pid", 128 * 1024, 4)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (MIB, Buffers("uid", 128 * 1024, 4)),
        (2 * MIB, Buffers("uid", 128 * 1024, 8)),
        (3 * MIB, Buffers("uid", 128 * 1024, 8)),
        (16 * MIB, Buffers("uid", 512 * 1024, 16)),
    ],
)
def test_a_budget_is_divided(budget: int, expected: Buffers) -> None:
    """More sub-buffers first, then larger ones; never more than the budget."""
    plan = plan_buffers("uid", budget, cpus=2, shared_bytes=PLENTY)
    assert plan == expected
    assert plan.owner_bytes(2) <= budget


def test_a_budget_that_is_too_small_is_refused() -> None:
    with pytest.raises(SessionError, match=r"16 MiB at least \(64 CPUs x 2 x 128 KiB\)"):
        plan_buffers("uid", 15 * MIB, cpus=64, shared_bytes=PLENTY)


def test_a_containers_shared_memory_makes_buffers_smaller(caplog: pytest.LogCaptureFixture) -> None:
    plan = plan_buffers(cpus=16, shared_bytes=64 * MIB)
    assert plan == Buffers("uid", 128 * 1024, 8)
    assert "so that 4 users fit" in caplog.text
    assert "shm_size" in caplog.text


def test_shared_memory_in_which_nothing_can_be_recorded_is_refused() -> None:
    with pytest.raises(SessionError, match="emptyDir"):
        plan_buffers(cpus=256, shared_bytes=63 * MIB)


def test_what_lttng_is_told() -> None:
    options = Buffers("pid", 131072, 4).options()
    assert options == ["--buffers-pid", "--subbuf-size=131072", "--num-subbuf=4"]
