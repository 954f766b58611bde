"""What the answers of the `lttng` command say."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from k8s_tracing.agent import session
from k8s_tracing.agent.lttng import command_options, parse_version
from k8s_tracing.errors import SessionError

# lttng 2.13, `--mi xml list NAME`, less the attributes that nobody reads.
ANSWER = """<?xml version="1.0" encoding="UTF-8"?>
<command xmlns="https://lttng.org/xml/ns/lttng-mi" schemaVersion="4.1"><name>list</name><output><sessions><session>
<name>spans</name><path>/spool/1</path><enabled>{enabled}</enabled><snapshot_mode>0</snapshot_mode>
<live_timer_interval>0</live_timer_interval>
<rotation_schedules>{rotation}</rotation_schedules>
<domains><domain><type>UST</type><buffer_type>PER_UID</buffer_type><channels><channel><name>spans</name>
<events><event><name>{event}</name><type>TRACEPOINT</type><enabled>true</enabled></event></events>
</channel></channels></domain></domains></session></sessions></output></command>"""

PERIODIC = "<periodic><time_us>500000</time_us></periodic>"


def parse(
    enabled: str = "true", rotation: str = "", event: str = "k8s_tracing:*"
) -> session.FoundSession:
    text = ANSWER.format(enabled=enabled, rotation=rotation, event=event)
    (found,) = session.parse_sessions(ElementTree.fromstring(text.encode()))
    return found


def test_a_session_is_described() -> None:
    found = parse(rotation=PERIODIC)
    expected = session.FoundSession("spans", Path("/spool/1"), True, True, 500_000)
    assert found == expected


def test_a_session_without_rotation() -> None:
    assert parse().rotation_us is None


def test_a_session_that_does_not_record() -> None:
    assert not parse(enabled="false").started


def test_a_session_of_somebody_else_is_not_complete() -> None:
    assert not parse(event="other:*").complete


def test_no_sessions() -> None:
    text = (
        '<command xmlns="https://lttng.org/xml/ns/lttng-mi"><output><sessions/></output></command>'
    )
    assert session.parse_sessions(ElementTree.fromstring(text)) == []


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("lttng (LTTng Trace Control) 2.13.9 - Nordicité\n", (2, 13)),
        ("lttng (LTTng Trace Control) 2.15.0 - Vin de garage - v2.15.0-2-gabc\n", (2, 15)),
    ],
)
def test_the_release_is_found(text: str, release: tuple[int, int]) -> None:
    assert parse_version(text) == release


def test_an_unknown_release_is_said() -> None:
    with pytest.raises(SessionError, match="release"):
        parse_version("command not found")


# `lttng create --list-options`, shortened: of 2.13 as it prints it; of the others from their sources (create.cpp).
OPTIONS_2_13 = (
    "--help\n-h\n--output\n-o\n--list-options\n--set-url\n--snapshot\n--live\n--shm-path\n"
)
OPTIONS_2_14 = OPTIONS_2_13
OPTIONS_2_15 = OPTIONS_2_14 + "--trace-format\n-F\n"


@pytest.mark.parametrize(
    ("listed", "asked_for"),
    [(OPTIONS_2_13, ()), (OPTIONS_2_14, ()), (OPTIONS_2_15, ("--trace-format=ctf-1.8",))],
)
def test_ctf_1_8_is_asked_for_where_there_is_a_choice(
    listed: str, asked_for: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "lttng"
    fake.write_text(f"#!/bin/sh\ncat <<.\n{listed}.\n")
    fake.chmod(0o755)
    monkeypatch.setattr("k8s_tracing.agent.lttng.program", lambda name: str(fake))
    command_options.cache_clear()
    try:
        assert session._format_option(command_options("create")) == asked_for
    finally:
        command_options.cache_clear()


def test_rotations_are_counted_by_number_and_not_by_time(tmp_path: Path) -> None:
    recorded = session.Session("s", tmp_path)
    assert recorded.rotations() is None
    for name in ("archives", ".tmp_old_chunk", "20260101T000002+0000-9", "20250101T000002+0000-10"):
        (tmp_path / name).mkdir()
    assert recorded.rotations() == 10
