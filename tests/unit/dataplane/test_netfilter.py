"""How far conntrack's answers can be trusted, by what /proc says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8s_tracing.dataplane.flows import ConntrackStats
from k8s_tracing.dataplane.netfilter import Questions, Terms, kept_s

#: As Linux has them unless somebody changes them.
DEFAULTS = {
    "tcp_timeout_close": 10,
    "tcp_timeout_close_wait": 60,
    "tcp_timeout_fin_wait": 120,
    "tcp_timeout_last_ack": 30,
    "tcp_timeout_time_wait": 120,
    "count": 100,
    "max": 262144,
    "timestamp": 1,
}
NOTHING_HEARD = ConntrackStats(*[0] * 8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    change(tmp_path, **DEFAULTS)
    return tmp_path


def change(folder: Path, **values: int) -> None:
    for name, value in values.items():
        (folder / f"nf_conntrack_{name}").write_text(f"{value}\n")


def test_a_connection_is_known_for_seconds_after_its_end(folder: Path) -> None:
    assert kept_s(folder) == 5.0


@pytest.mark.parametrize("state", ["close", "close_wait", "fin_wait", "last_ack", "time_wait"])
def test_or_for_less_where_somebody_wants_it_forgotten_sooner(folder: Path, state: str) -> None:
    change(folder, **{f"tcp_timeout_{state}": 3})
    assert kept_s(folder) == 1.5


def test_a_table_that_is_nearly_full_forgets(folder: Path) -> None:
    change(folder, count=240_000)
    assert kept_s(folder) == 0


def test_nothing_is_trusted_where_the_kernel_does_not_tell(tmp_path: Path, folder: Path) -> None:
    (folder / "nf_conntrack_max").write_text("many\n")
    assert kept_s(folder) == kept_s(tmp_path / "none") == 0


def test_terms_are_told_when_they_change(folder: Path) -> None:
    now_s = 100.0
    with Questions(lambda: now_s) as questions:
        assert questions.terms(NOTHING_HEARD, folder) == Terms(5 * 10**9, True, 0)
        change(folder, timestamp=0)
        assert (
            questions.terms(NOTHING_HEARD, folder) is None
        )  # it does not look more than once a second
        now_s += 1
        assert questions.terms(NOTHING_HEARD, folder) == Terms(5 * 10**9, False, 0)
        now_s += 1
        assert questions.terms(NOTHING_HEARD, folder) is None


def test_events_that_were_lost_change_them(folder: Path) -> None:
    now_s = 100.0
    with Questions(lambda: now_s) as questions:
        questions.terms(NOTHING_HEARD, folder)
        now_s += 1
        heard = ConntrackStats(
            *[1 if name == "overflows" else 0 for name in ConntrackStats.__slots__]
        )
        assert questions.terms(heard, folder) == Terms(5 * 10**9, True, 1)


def test_a_table_that_was_full_has_forgotten_what_was_ending_then(folder: Path) -> None:
    now_s = 100.0
    with Questions(lambda: now_s) as questions:
        change(folder, count=262_144)
        kept = [questions.terms(NOTHING_HEARD, folder)]
        change(folder, count=100)
        for _ in range(5):
            now_s += 1
            kept.append(questions.terms(NOTHING_HEARD, folder))
        assert [terms and terms.kept_ns for terms in kept] == [0, None, None, None, None, 5 * 10**9]


def test_connections_in_a_zone_are_not_found_without_it(folder: Path) -> None:
    heard = ConntrackStats(*[7 if name == "in_zones" else 0 for name in ConntrackStats.__slots__])
    with Questions() as questions:
        assert questions.terms(heard, folder) == Terms(0, True, 0)
