"""Events of the kernel's scheduler -> what a thread did between two times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s_tracing.dataplane.scheduler import Scheduler
from k8s_tracing.libraries import load

MS = 1_000_000
US = 1_000
NS = 4_026_531_836
#: A process in a PID namespace of its own, as /proc would show it: 700 is 7 there, its second thread 701 is 8.
PID, VPID, SECOND = 700, 7, 701
TIMER, OTHER_TIMER = 0xFFFF_8880_0000_1000, 0xFFFF_8880_0000_9000
IDLE, STRANGER = 0, 999


def make_task(proc: Path, pid: int, tid: int, numbers: str) -> None:
    task = proc / str(pid) / "task" / str(tid)
    task.mkdir(parents=True)
    (task / "status").write_text(f"Name:\tx\nNSpid:\t{numbers}\nThreads:\t1\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    make_task(proc, PID, PID, f"{PID}\t{VPID}")
    make_task(proc, PID, SECOND, f"{SECOND}\t8")
    (proc / str(PID) / "ns").mkdir()
    (proc / str(PID) / "ns/pid").write_text("")
    return proc


def namespace(proc: Path) -> int:
    return (proc / str(PID) / "ns/pid").stat().st_ino


class Told:
    """A scheduler that is told events at times that are ms after the start."""

    def __init__(self, proc: Path, max_points: int = 1 << 20) -> None:
        self.scheduler = Scheduler(proc=proc, listens=False, max_points=max_points)
        self.pid_ns = namespace(proc)
        self.start_ns = time.monotonic_ns()
        self.kinds = load("dataplane")[1]
        self.events: list[dict[str, int]] = []

    def at(self, ms: float) -> int:
        return self.start_ns + round(ms * MS)

    def event(self, ms: float, kind: str, **fields: int) -> None:
        number = getattr(self.kinds, f"SCHEDULER_{kind}")
        self.events.append({"time_ns": self.at(ms), "kind": number} | fields)

    def switch(
        self, ms: float, before: int, after: int, *, runnable: int = 0, cpu: int = 0
    ) -> None:
        self.event(ms, "SWITCH", thread=before, next=after, runnable=runnable, cpu=cpu)

    def waking(self, ms: float, tid: int) -> None:
        self.event(ms, "WAKING", thread=tid)

    def now(self, ms: float) -> None:
        events, self.events = self.events, []
        self.scheduler.feed(events, self.at(ms))

    def times(
        self, begin_ms: float, end_ms: float, vtid: int = VPID
    ) -> tuple[float, float, float] | None:
        times = self.scheduler.times(self.pid_ns, VPID, vtid, self.at(begin_ms), self.at(end_ms))
        return None if times is None else (times[0] / MS, times[1] / MS, times[2] / MS)


@pytest.fixture
def told(proc: Path) -> Iterator[Told]:
    told = Told(proc)
    with told.scheduler:
        assert told.scheduler.follow(PID)
        yield told


def test_running_waiting_and_blocked(told: Told) -> None:
    told.switch(0, STRANGER, PID)
    told.switch(10, PID, IDLE)  # blocks
    told.waking(15, PID)
    told.switch(17, STRANGER, PID)  # and the CPU was another's for 2 ms
    told.switch(20, PID, STRANGER, runnable=1)
    told.switch(26, STRANGER, PID)
    told.now(40)
    assert told.times(1, 30) == (9 + 3 + 4, 2 + 6, 0)
    assert told.times(18, 19) == (1, 0, 0)


def test_threads_are_numbered_as_in_their_own_namespace(told: Told) -> None:
    told.switch(0, STRANGER, SECOND)
    told.now(10)
    assert told.times(1, 9, vtid=8) == (8, 0, 0)
    assert told.times(1, 9, vtid=SECOND) is None
    assert told.times(1, 9) is None  # nobody has said what that one does
    assert told.scheduler.times(told.pid_ns + 1, VPID, 8, told.at(1), told.at(9)) is None


def test_what_was_not_heard_is_not_told(told: Told) -> None:
    told.switch(5, STRANGER, PID)
    told.now(20)
    assert told.times(4, 10) is None  # before
    assert told.times(6, 21) is None  # not yet
    assert told.times(10, 6) is None
    assert told.times(6, 10) == (4, 0, 0)


def test_after_events_were_lost_nothing_is_known_until_the_next(told: Told) -> None:
    told.switch(0, STRANGER, PID)
    told.event(10, "LOST")
    told.switch(20, PID, STRANGER, runnable=1)
    told.switch(22, STRANGER, PID)
    told.now(40)
    assert told.times(1, 9) == (8, 0, 0)
    assert told.times(1, 30) is None
    assert told.times(23, 30) == (7, 0, 0)


def test_a_wake_up_is_recorded_before_the_sleep_that_it_ends(told: Told) -> None:
    told.switch(0, STRANGER, PID)
    told.waking(9.999, PID)  # by another CPU, which saw that it was about to sleep
    told.switch(10, PID, STRANGER)
    told.switch(14, STRANGER, PID)
    told.now(20)
    assert told.times(1, 19) == (9 + 5, 4, 0)


def test_a_wake_up_of_who_does_not_sleep_means_nothing(told: Told) -> None:
    told.switch(0, STRANGER, PID)
    told.waking(5, PID)
    told.switch(6, PID, STRANGER, runnable=1)
    told.switch(8, STRANGER, PID)
    told.switch(10, PID, IDLE)
    told.waking(13, PID)
    told.switch(13.5, IDLE, PID)
    told.now(20)
    assert told.times(1, 19) == (5 + 2 + 5.5, 2 + 0.5, 0)


def test_who_leaves_a_cpu_that_it_was_not_seen_to_get_got_it_when_it_could_go_on(
    told: Told,
) -> None:
    told.switch(0, STRANGER, PID, cpu=1)
    told.switch(10, PID, IDLE, cpu=1)
    told.waking(15, PID)
    told.now(18)
    assert told.times(1, 17) == (9 + 2, 0, 0)  # it says itself that it runs
    told.switch(20, PID, IDLE, cpu=1)
    told.waking(21, PID)
    told.switch(25, STRANGER, PID, cpu=1)
    told.now(30)
    assert told.times(1, 19) == (9 + 4, 0, 0)
    assert told.times(1, 29) == (9 + 5 + 4, 4, 0)


def test_both_at_once(told: Told) -> None:
    told.switch(0, STRANGER, PID)
    told.waking(9.999, PID)
    told.switch(10, PID, IDLE)
    told.now(12)
    assert told.times(1, 11) == (9 + 1, 0, 0)
    told.switch(14, PID, IDLE)
    told.waking(16, PID)
    told.switch(17, STRANGER, PID)
    told.now(20)
    assert told.times(1, 19) == (9 + 4 + 2, 1, 0)


def test_a_wake_up_of_who_waits_shows_that_he_had_a_cpu_and_was_about_to_sleep(told: Told) -> None:
    told.switch(0, STRANGER, PID)
    told.switch(10, PID, IDLE)
    told.waking(14, PID)  # and an idle CPU took it on at once
    told.waking(14.999, PID)
    told.switch(15, PID, IDLE)
    told.switch(18, PID, IDLE)  # the same once more
    told.waking(20, PID)
    told.switch(20.5, STRANGER, PID)
    told.now(30)
    assert told.times(1, 29) == (9 + 1 + 3 + 8.5, 0.5, 0)


def test_a_gap_that_cannot_be_is_not_told(told: Told) -> None:
    told.switch(0, STRANGER, PID)
    told.switch(10, PID, STRANGER)
    told.switch(20, PID, STRANGER)  # it slept; who woke it, and when did it get the CPU?
    told.switch(22, STRANGER, PID)
    told.switch(24, STRANGER, PID, cpu=1)  # when did it leave the other one?
    told.now(30)
    assert told.times(1, 9) == (8, 0, 0)
    assert told.times(1, 23) is None
    assert told.times(22.5, 23) is None
    assert told.times(25, 29) == (4, 0, 0)


def test_children_and_new_threads_are_followed(told: Told, proc: Path) -> None:
    make_task(proc, PID, 702, "702\t9")
    told.event(1, "THREAD", thread=PID, next=702)
    make_task(proc, 710, 710, "710\t10")
    (proc / "710/ns").mkdir()
    (proc / "710/ns/pid").hardlink_to(proc / str(PID) / "ns/pid")
    told.event(1, "FORK", thread=SECOND, next=710)
    told.event(1, "FORK", thread=STRANGER, next=800)
    told.switch(2, STRANGER, 702)
    told.switch(2, STRANGER, 710, cpu=1)
    told.now(10)
    assert told.times(3, 9, vtid=9) == (6, 0, 0)
    child = told.scheduler.times(told.pid_ns, 10, 10, told.at(3), told.at(9))
    assert child == (6 * MS, 0, 0)
    assert told.scheduler.stats.threads == 4


def test_a_thread_that_ended_is_remembered_and_then_forgotten(told: Told) -> None:
    told.switch(0, STRANGER, PID)
    told.switch(0, STRANGER, SECOND, cpu=1)
    told.event(10, "EXIT", thread=SECOND)
    told.switch(10, SECOND, IDLE, cpu=1)
    told.now(20)
    assert told.times(1, 9, vtid=8) == (8, 0, 0)
    assert told.scheduler.stats.threads == 2
    told.switch(100_000, PID, IDLE)
    told.now(100_000)
    assert told.scheduler.stats.threads == 1
    assert told.times(1, 9, vtid=8) is None


def test_a_thread_that_is_gone_before_it_is_looked_at_is_counted(told: Told) -> None:
    told.event(1, "THREAD", thread=PID, next=703)
    told.now(2)
    assert told.scheduler.stats.not_followed == 1


def test_a_process_that_is_gone_is_not_followed(told: Told) -> None:
    assert not told.scheduler.follow(4711)


def test_memory_is_bounded_and_what_is_recent_stays(proc: Path) -> None:
    told = Told(proc, max_points=10_000)
    with told.scheduler:
        told.scheduler.follow(PID)
        for second in range(10):
            for step in range(1000):
                ms = 1000 * second + step
                told.switch(ms, STRANGER, PID)
                told.switch(ms + 0.5, PID, STRANGER, runnable=1)
            told.now(1000 * (second + 1))
            assert told.scheduler.stats.points <= 10_000 + 2000
        assert told.scheduler.stats.remembered_ns < 10e9
        assert told.times(9000, 9900) == (450, 450, 0)
        assert told.times(0, 9900) is None


# ---- throttling --------------------------------------------------------------------------------


class Quota(Told):
    """The same with a container whose cpu.stat says what it is told to; times are as they pass."""

    def __init__(self, proc: Path, stat: Path) -> None:
        self.stat, self.periods, self.throttled = stat, 0, 0
        self.write()
        super().__init__(proc)
        _, lib = load("dataplane")
        # as `follow` does for a process that /proc says is in a cgroup
        lib.scheduler_follow(self.scheduler._scheduler, PID, str(stat).encode())

    def write(self) -> None:
        self.stat.write_text(
            f"nr_periods {self.periods}\nnr_throttled {self.throttled}\n"
            f"throttled_usec {50_000 * self.throttled}\n"
        )

    def ms(self) -> float:
        return (time.monotonic_ns() - self.start_ns) / MS

    def period(self, *, throttled: bool, timer: int = TIMER, others: bool = False) -> float:
        """A timer goes off, 2 ms after the quota was read and 2 ms before it is read again; returns when."""
        time.sleep(0.002)
        at = self.ms()
        if others:
            self.event(at, "REFILL", timer=OTHER_TIMER)
        self.event(at, "REFILL", timer=timer)
        if timer == TIMER:
            self.periods += 1
            self.throttled += throttled
            self.write()
        time.sleep(0.002)
        self.now(self.ms())
        return at

    def goes_on(
        self, start_ms: float, *, after: int = IDLE
    ) -> tuple[float, tuple[float, float, float]]:
        """The thread gets a CPU: when, and what it did from the start to 1 ms after that."""
        again = self.ms()
        self.switch(again, after, PID)
        self.now(again + 1)
        times = self.times(start_ms, again + 1)
        assert times is not None
        return again, times

    def learn(self) -> None:
        """It goes off with another one, and without it."""
        self.period(throttled=False, others=True)
        self.now(self.ms())
        self.period(throttled=False, timer=OTHER_TIMER)
        self.now(self.ms())
        self.now(self.ms())


@pytest.fixture
def quota(proc: Path, tmp_path: Path) -> Iterator[Quota]:
    quota = Quota(proc, tmp_path / "cpu.stat")
    with quota.scheduler:
        yield quota


def test_who_could_go_on_was_throttled_until_the_refill(quota: Quota) -> None:
    quota.learn()
    start = quota.ms()
    quota.switch(start, STRANGER, PID)
    time.sleep(0.010)
    stopped = quota.ms()
    quota.switch(stopped, PID, IDLE, runnable=1)
    refilled = quota.period(throttled=True)
    again = quota.ms()
    quota.switch(again, IDLE, PID)
    time.sleep(0.001)
    end = quota.ms()
    quota.now(end)
    times = quota.times(start, end)
    assert times is not None
    assert times[0] == pytest.approx(stopped - start + end - again, abs=0.001)
    assert times[1] == pytest.approx(again - refilled, abs=0.001)
    assert times[2] == pytest.approx(refilled - stopped, abs=0.001)


def test_a_period_that_was_not_used_up_throttled_nobody(quota: Quota) -> None:
    quota.learn()
    start = quota.ms()
    quota.switch(start, STRANGER, PID)
    quota.switch(start + 1, PID, STRANGER, runnable=1)
    quota.period(throttled=False)
    again, times = quota.goes_on(start, after=STRANGER)
    assert times[1:] == (pytest.approx(again - start - 1, abs=0.001), 0)


def test_nobody_is_throttled_while_another_of_the_container_runs_on_his_cpu(quota: Quota) -> None:
    quota.learn()
    start = quota.ms()
    quota.switch(start, STRANGER, PID)
    time.sleep(0.008)
    other = quota.ms()
    quota.switch(other, PID, SECOND, runnable=1)
    time.sleep(0.008)
    stopped = quota.ms()
    quota.switch(stopped, SECOND, IDLE, runnable=1)
    time.sleep(0.008)
    refilled = quota.period(throttled=True)
    again, times = quota.goes_on(start)
    assert times[1] == pytest.approx(stopped - other + again - refilled, abs=0.001)
    assert times[2] == pytest.approx(refilled - stopped, abs=0.001)


def test_who_waits_behind_others_is_not_throttled_before_the_quota_is_used_up(quota: Quota) -> None:
    quota.learn()
    start = quota.ms()
    quota.switch(start, STRANGER, SECOND, cpu=1)
    quota.switch(start, STRANGER, PID)
    quota.switch(start + 1, PID, STRANGER, runnable=1)
    time.sleep(0.020)
    # on the other CPU it ran until then, with at most 5 ms that it had taken before
    stopped = quota.ms()
    quota.switch(stopped, SECOND, IDLE, runnable=1, cpu=1)
    refilled = quota.period(throttled=True)
    _, times = quota.goes_on(start, after=STRANGER)
    assert times[2] == pytest.approx(refilled - (stopped - 5), abs=0.001)


def test_as_long_as_the_timer_is_not_known_it_is_not_told_what_was_throttling(quota: Quota) -> None:
    start = quota.ms()
    quota.switch(start, STRANGER, PID)
    quota.switch(start + 1, PID, IDLE, runnable=1)
    quota.period(throttled=True, others=True)
    again, times = quota.goes_on(start)
    assert times[1:] == (pytest.approx(again - start - 1, abs=0.001), -1 / MS)
    assert quota.scheduler.stats.timers_unknown == 1


def test_a_timer_that_becomes_another_ones_is_noticed(quota: Quota) -> None:
    quota.learn()
    # it goes off, and this container counts no period: it is somebody else's now
    quota.event(quota.ms(), "REFILL", timer=TIMER)
    for _ in range(4):
        time.sleep(0.002)
        quota.now(quota.ms())
    start = quota.ms()
    quota.switch(start, STRANGER, PID)
    quota.switch(start + 1, PID, IDLE, runnable=1)
    quota.period(throttled=True, others=True)
    _, times = quota.goes_on(start)
    assert times[2] == -1 / MS


def test_a_refill_that_was_not_heard_leaves_a_doubt(quota: Quota) -> None:
    quota.learn()
    start = quota.ms()
    quota.switch(start, STRANGER, PID)
    quota.switch(start + 1, PID, IDLE, runnable=1)
    time.sleep(0.002)
    quota.periods += 1
    quota.throttled += 1
    quota.write()  # and its timer was lost
    for _ in range(3):
        time.sleep(0.002)
        quota.now(quota.ms())
    _, times = quota.goes_on(start)
    assert times[2] == -1 / MS


# ---- a model ------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.integers(1, 5000), st.sampled_from(["block", "preempt"]), st.integers(0, 5000)),
    min_size=1,
    max_size=40,
)


@given(steps=STEPS, data=st.data())
def test_the_parts_are_those_of_a_model(
    steps: list[tuple[int, str, int]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    proc = tmp_path_factory.mktemp("proc")
    make_task(proc, PID, PID, f"{PID}\t{VPID}")
    (proc / str(PID) / "ns").mkdir()
    (proc / str(PID) / "ns/pid").write_text("")
    told = Told(proc)
    with told.scheduler:
        told.scheduler.follow(PID)
        now_us = 0
        pieces: list[tuple[int, int, str]] = []  # from, to, what
        told.switch(0, STRANGER, PID)
        for run_us, why, wait_us in steps:
            pieces.append((now_us, now_us + run_us, "running"))
            now_us += run_us
            told.switch(now_us / 1000, PID, STRANGER, runnable=why == "preempt")
            if why == "block":
                pieces.append((now_us, now_us + wait_us, "blocked"))
                now_us += wait_us
                told.waking(now_us / 1000, PID)
            pieces.append((now_us, now_us + wait_us, "waiting"))
            now_us += wait_us
            told.switch(now_us / 1000, STRANGER, PID)
        pieces.append((now_us, now_us + 1000, "running"))
        told.now(now_us / 1000 + 1)
        ran = [piece for piece in pieces if piece[2] == "running"]
        first, last = sorted(data.draw(st.integers(0, len(ran) - 1)) for _ in range(2))
        begin_us = data.draw(st.integers(ran[first][0], ran[first][1] - 1))
        end_us = data.draw(st.integers(max(begin_us, ran[last][0]), ran[last][1] - 1))
        spent = dict.fromkeys(("running", "waiting", "blocked"), 0)
        for start, end, what in pieces:
            spent[what] += max(0, min(end, end_us) - max(start, begin_us))
        times = told.scheduler.times(
            told.pid_ns, VPID, VPID, told.start_ns + begin_us * US, told.start_ns + end_us * US
        )
        assert times == (spent["running"] * US, spent["waiting"] * US, 0)
