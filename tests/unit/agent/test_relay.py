"""The relay, on traces written for the case; tests/golden/relay has one that LTTng recorded."""

import json
import shutil
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from k8s_tracing.agent.chunks import chunk_folders
from k8s_tracing.agent.relay import Relay
from k8s_tracing.errors import RelayError
from k8s_tracing.otlp import to_json_line
from k8s_tracing.record import SpanRecord
from tests.support.ctf import LAYOUTS, Event, Packet, write_trace
from tests.support.spans import (
    BASE_NS,
    INSTANCE,
    MS,
    TRACE_ID,
    S,
    announced,
    attributes,
    by_name,
    decode,
    end,
    event,
    read_all,
    start,
)

#: A chunk of a second in which nobody was registered.
IDLE = Path("20261122T100000+0000-20261122T100001+0000-7")

GOLDEN = Path(__file__).parents[2] / "golden" / "relay"


def chunk(tmp_path: Path, number: int, *streams: list[Event]) -> Path:
    """Write a chunk with one trace folder."""
    write_trace(tmp_path / f"chunk-{number}" / "ust" / "uid" / "0" / "64-bit", streams)
    return tmp_path / f"chunk-{number}"


def read_events(tmp_path: Path, *events: Event) -> tuple[list[SpanRecord], Relay]:
    """The spans of one stream, and the relay for its counters."""
    relay = Relay()
    return read_all(relay, chunk(tmp_path, 0, [*announced(), *events])), relay


def test_golden_recording_of_lttng():
    """What LTTng itself recorded, over two chunks, becomes the OTLP JSON that lies beside it."""
    lines = []
    with Relay() as relay:
        for folder in chunk_folders(GOLDEN / "recorded"):
            lines += [to_json_line(request.body) for request in relay.read(folder)]
        lines += [to_json_line(request.body) for request in relay.finish()]
        stats = relay.stats
    expected = (GOLDEN / "expected.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in expected] == [json.loads(line) for line in lines]
    assert (stats.spans, stats.unfinished, stats.events) == (4, 1, 11)


class TestOneSpan:
    """What the events of a span say is what the span says."""

    def test_the_least_that_a_span_can_have(self, tmp_path):
        spans, _ = read_events(tmp_path, start(7), end(7))
        assert spans == [
            SpanRecord(
                trace_id=TRACE_ID,
                span_id=f"{7:016x}",
                name="span 7",
                start_time_ns=BASE_NS,
                end_time_ns=BASE_NS + MS,
                resource={"service.name": "shop"},
                scope_name="tests",
                scope_version="1.0",
            )
        ]

    def test_all_fields(self, tmp_path):
        first = start(7, parent_span_id=6, kind=3, flags=0x03, op_name="café")
        message = Span(trace_state="vendor=1")
        message.attributes.add(key="n").value.int_value = -5
        last = end(
            7,
            status=2,
            status_message="möglich",
            attributes=message.SerializeToString(),
            dropped_attributes=1,
            dropped_events=2,
            dropped_links=3,
        )
        spans, _ = read_events(tmp_path, first, last)
        (span,) = spans
        assert f"{6:016x}" == span.parent_span_id
        assert (span.kind, span.flags, span.name) == ("CLIENT", 0x03, "café")
        assert (span.status, span.status_message) == ("ERROR", "möglich")
        assert (span.attributes, span.trace_state) == ({"n": -5}, "vendor=1")
        dropped = (span.dropped_attributes, span.dropped_events, span.dropped_links)
        assert dropped == (1, 2, 3)

    def test_times_that_the_caller_gave_replace_those_of_the_events(self, tmp_path):
        spans, _ = read_events(
            tmp_path, start(7, start_time=BASE_NS - S), end(7, end_time=BASE_NS + S)
        )
        assert (spans[0].start_time_ns, spans[0].duration_ns) == (BASE_NS - S, 2 * S)

    def test_an_end_before_the_start_is_the_start(self, tmp_path):
        spans, _ = read_events(tmp_path, start(7), end(7, end_time=BASE_NS - S))
        assert spans[0].duration_ns == 0

    def test_a_renamed_span_has_its_last_name_only(self, tmp_path):
        spans, _ = read_events(
            tmp_path,
            start(7, op_name="HTTP GET"),
            event("span_event", 1, span_id=7, name="routed"),
            end(7, op_name="GET /users", attributes=attributes(a="b")),
        )
        assert (spans[0].name, spans[0].attributes) == ("GET /users", {"a": "b"})
        assert [e.name for e in spans[0].events] == ["routed"]

    def test_an_empty_text_after_a_long_one_is_empty(self, tmp_path):
        spans, _ = read_events(
            tmp_path,
            start(1),
            end(1, 1, op_name="renamed", status=2, status_message="bad"),
            start(2, 2, op_name="kept"),
            end(2, 3, status=2),
        )
        named = by_name(spans)
        assert (named["renamed"].status_message, named["kept"].status_message) == ("bad", "")

    def test_events_stand_in_the_order_of_their_times(self, tmp_path):
        spans, _ = read_events(
            tmp_path,
            start(7),
            event("span_event", 1, span_id=7, name="third", time=BASE_NS + 30),
            event("span_event", 2, span_id=7, name="first", time=BASE_NS + 10),
            event("span_link", 3, span_id=7, linked_trace_id_low=1, linked_span_id=2),
            event("span_event", 4, span_id=7, name="second", time=BASE_NS + 20),
            end(7, attributes=attributes(a="b"), status=1),
        )
        (span,) = spans
        assert [e.name for e in span.events] == ["first", "second", "third"]
        assert (span.attributes, span.status, len(span.links)) == ({"a": "b"}, "OK", 1)

    def test_events_and_links_have_all_their_fields(self, tmp_path):
        told = Span.Event()
        told.attributes.add(key="a").value.bool_value = True
        link = Span.Link(trace_state="x=y")
        link.attributes.add(key="b").value.double_value = 0.5
        spans, _ = read_events(
            tmp_path,
            start(7),
            event(
                "span_event",
                5,
                span_id=7,
                name="told",
                dropped_attributes=2,
                attributes=told.SerializeToString(),
            ),
            event(
                "span_link",
                6,
                span_id=7,
                linked_trace_id_high=1,
                linked_trace_id_low=2,
                linked_span_id=3,
                flags=1,
                dropped_attributes=4,
                attributes=link.SerializeToString(),
            ),
            end(7),
        )
        (told_event,), (told_link,) = spans[0].events, spans[0].links
        assert (told_event.time_ns, told_event.attributes) == (BASE_NS + 5, {"a": True})
        assert (told_event.dropped_attributes, told_link.dropped_attributes) == (2, 4)
        assert (f"{1:016x}{2:016x}", f"{3:016x}") == (told_link.trace_id, told_link.span_id)
        assert (
            told_link.attributes,
            told_link.trace_state,
            told_link.flags,
        ) == ({"b": 0.5}, "x=y", 1)

    def test_byte_sequences_of_single_bytes(self, tmp_path):
        """Elements of 8 bits are as good as words of 64."""
        layouts = {
            name: {field: "bytes" if kind == "words" else kind for field, kind in layout.items()}
            for name, layout in LAYOUTS.items()
        }
        events = [*announced(), start(7), end(7, attributes=attributes(key="value"))]
        write_trace(tmp_path / "trace", [events], layouts)
        with Relay() as relay:
            (span,) = read_all(relay, tmp_path)
        assert (span.attributes, span.service_name) == ({"key": "value"}, "shop")


class TestPairing:
    """Start and end find each other wherever they were recorded."""

    def test_in_the_buffers_of_two_cpus(self, tmp_path):
        with Relay() as relay:
            folder = chunk(tmp_path, 0, [*announced(), start(1)], [end(1)])
            assert len(read_all(relay, folder)) == 1

    def test_in_two_chunks(self, tmp_path):
        first = chunk(tmp_path, 0, [*announced(), start(1), event("span_event", 5, span_id=1)])
        second = chunk(tmp_path, 1, [end(1, S)])
        with Relay() as relay:
            assert decode(relay.read(first)) == []
            assert relay.stats.open_spans == 1
            (span,) = read_all(relay, second)
        assert (span.duration_ns, len(span.events)) == (S, 1)

    def test_in_two_chunks_with_the_end_first(self, tmp_path):
        """A rotation visits the CPUs' buffers one after another."""
        details = [
            event("span_event", 5, span_id=1, name="e"),
            event("span_link", 6, span_id=1, linked_trace_id_low=1, linked_span_id=1),
        ]
        first = chunk(tmp_path, 0, [*details, end(1, attributes=attributes(a="b"))])
        second = chunk(tmp_path, 1, [*announced(), start(1)])
        with Relay() as relay:
            assert decode(relay.read(first)) == []
            assert relay.stats.orphans == 1
            (span,) = read_all(relay, second)
            assert relay.stats.ends_without_start == 0
        assert (span.name, span.attributes, span.duration_ns) == ("span 1", {"a": "b"}, MS)
        assert (len(span.events), len(span.links)) == (1, 1)

    def test_renamed_with_the_end_first(self, tmp_path):
        first = chunk(tmp_path, 0, [end(1, op_name="last name")])
        second = chunk(tmp_path, 1, [*announced(), start(1)])
        with Relay() as relay:
            assert [span.name for span in read_all(relay, first, second)] == ["last name"]

    def test_in_trace_folders_of_two_users(self, tmp_path):
        write_trace(tmp_path / "ust" / "uid" / "0" / "64-bit", [[end(1)]])
        write_trace(tmp_path / "ust" / "uid" / "7" / "64-bit", [[*announced(), start(1)]])
        with Relay() as relay:
            assert len(read_all(relay, tmp_path)) == 1

    def test_an_event_of_the_next_chunk_finds_a_span_that_ended_about_the_rotation(self, tmp_path):
        first = chunk(tmp_path, 0, [*announced(), start(1), end(1, 100)])
        second = chunk(tmp_path, 1, [event("span_event", 50, span_id=1, name="late")])
        with Relay() as relay:
            assert decode(relay.read(first)) == []
            assert relay.stats.waiting_spans == 1
            (span,) = decode(relay.read(second))
            assert relay.stats.waiting_spans == 0
        assert [e.name for e in span.events] == ["late"]

    def test_a_span_that_ended_well_before_the_rotation_goes_out_at_once(self, tmp_path):
        folder = chunk(tmp_path, 0, [*announced(), start(1), end(1, MS), start(2, S)])
        with Relay() as relay:
            assert len(decode(relay.read(folder))) == 1

    def test_an_end_without_start_waits_for_two_chunks(self, tmp_path):
        folders = [chunk(tmp_path, 0, [end(1), event("span_event", 2 * MS, span_id=9)])]
        folders += [chunk(tmp_path, n, [start(2)]) for n in (1, 2)]
        orphans = []
        with Relay() as relay:
            for folder in folders:
                assert decode(relay.read(folder)) == []
                orphans.append(relay.stats.orphans)
            assert (relay.stats.ends_without_start, relay.stats.details_without_span) == (1, 1)
        assert orphans == [2, 2, 0]

    def test_an_end_of_another_trace_does_not_end_a_span(self, tmp_path):
        spans, relay = read_events(tmp_path, start(1), end(1, trace_id_low=99))
        assert spans[0].unfinished
        assert relay.stats.ends_without_start == 1

    def test_what_comes_twice_counts_once(self, tmp_path):
        spans, relay = read_events(
            tmp_path, start(1), start(1, 1, op_name="again"), end(1), end(1, 2 * MS, status=2)
        )
        assert [(span.name, span.status) for span in spans] == [("span 1", "UNSET")]
        assert relay.stats.duplicates == 2

    def test_unfinished_spans_end_with_the_last_that_their_process_did(self, tmp_path):
        spans, relay = read_events(
            tmp_path,
            start(1),
            start(2, MS),
            end(2, 2 * MS),
            *announced(S, "other", 99),
            start(3, 2 * S, instance_id=99),
        )
        named = by_name(spans)
        assert (named["span 1"].unfinished, named["span 1"].duration_ns) == (True, 2 * MS)
        assert (named["span 2"].unfinished, named["span 3"].unfinished) == (False, True)
        assert relay.stats.unfinished == 2


class TestProcesses:
    """Spans go out with the resource and the scope that their process announced."""

    def test_grouped_by_process_and_scope(self, tmp_path):
        events = [*announced(), *announced(0, "other", 99)]
        for n in range(1, 9):
            events += [
                start(n, n, instance_id=(INSTANCE, 99)[n % 2], scope_id=n // 2 % 2),
                end(n, n),
            ]
        with Relay() as relay:
            requests = list(relay.read(chunk(tmp_path, 0, events)))
            (request,) = [*requests, *relay.finish()]
        content = json.loads(to_json_line(request.body))["resourceSpans"]
        assert [len(group["scopeSpans"]) for group in content] == [2, 2]
        spans = decode([request])
        assert {("other", "tests"), ("other", ""), ("shop", "tests"), ("shop", "")} == {
            (span.service_name, span.scope_name) for span in spans
        }

    def test_a_span_that_was_held_back_waits_for_its_process(self, tmp_path):
        first = chunk(tmp_path, 0, [start(1), end(1)])
        with Relay() as relay:
            assert decode(relay.read(first)) == []
            for _ in range(3):
                assert decode(relay.read_nothing(IDLE)) == []
                assert relay.stats.waiting_spans == 1
            (span,) = decode(relay.read(chunk(tmp_path, 1, announced(S))))
            assert (span.service_name, relay.stats.waiting_spans) == ("shop", 0)

    def test_announced_in_a_later_chunk(self, tmp_path):
        first = chunk(tmp_path, 0, [start(1), end(1), start(2, S)])
        second = chunk(tmp_path, 1, announced(9 * S))
        with Relay() as relay:
            assert decode(relay.read(first)) == []
            assert relay.stats.waiting_spans == 1
            (span,) = decode(relay.read(second))
            assert relay.stats.unknown_resources == 0
        assert (span.service_name, span.scope_name) == ("shop", "tests")

    def test_never_announced(self, tmp_path):
        """After 15 s of the trace's time a span goes out without its process."""
        first = chunk(tmp_path, 0, [start(1), end(1), start(2, 14 * S)])
        second = chunk(tmp_path, 1, [start(3, 16 * S)])
        with Relay() as relay:
            assert decode(relay.read(first)) == []
            (span,) = decode(relay.read(second))
            assert (relay.stats.unknown_resources, relay.stats.unknown_scopes) == (1, 1)
        assert (span.resource, span.scope_name) == ({"service.name": "unknown_service"}, "")

    def test_time_goes_on_where_nothing_is_recorded(self, tmp_path):
        first = chunk(tmp_path, 0, [start(1), end(1)])
        write_trace(tmp_path / "chunk-1", [[Packet([], end_ns=BASE_NS + 20 * S)]])
        with Relay() as relay:
            assert decode(relay.read(first)) == []
            assert len(decode(relay.read(tmp_path / "chunk-1"))) == 1

    def test_the_end_of_reading_waits_for_nothing(self, tmp_path):
        with Relay() as relay:
            (span,) = read_all(relay, chunk(tmp_path, 0, [start(1), end(1)]))
        assert span.service_name == "unknown_service"

    def test_an_unknown_scope(self, tmp_path):
        spans, relay = read_events(tmp_path, start(1, scope_id=5), end(1))
        assert (spans[0].service_name, spans[0].scope_name) == ("shop", "")
        assert (relay.stats.unknown_resources, relay.stats.unknown_scopes) == (0, 1)

    def test_a_new_resource_replaces_the_old_one(self, tmp_path):
        first = chunk(tmp_path, 0, [*announced(), start(1), end(1), start(9, S)])
        second = chunk(tmp_path, 1, [*announced(2 * S, "renamed"), start(2, 2 * S), end(2, 3 * S)])
        with Relay() as relay:
            spans = by_name(read_all(relay, first, second))
        services = (spans["span 1"].service_name, spans["span 2"].service_name)
        assert services == ("shop", "renamed")


class TestHostileInput:
    """Any container can send anything under our provider's name."""

    def test_invalid_fields_are_dropped_and_counted(self, tmp_path):
        spans, relay = read_events(
            tmp_path,
            start(1),
            event("span_event", 1, span_id=1, name="e", attributes=b"\xff\xff\xff\x7f"),
            event("span_link", 2, span_id=1, linked_span_id=5, attributes=b"\x22\x7f\x0a"),
            end(1, attributes=b"\x4a\x04\x0a\x02\xff\xfe", dropped_attributes=1),
        )
        (span,) = spans
        assert (span.attributes, span.dropped_attributes) == ({}, 2)
        assert (span.events[0].attributes, span.events[0].dropped_attributes) == ({}, 1)
        assert (span.links[0].attributes, span.links[0].dropped_attributes) == ({}, 1)
        assert (relay.stats.invalid_fields, relay.stats.invalid_bytes) == (3, 24)

    def test_an_invalid_resource_is_none(self, tmp_path):
        events = [event("process", 0, instance_id=INSTANCE, resource=b"\x0a\x50"), start(1), end(1)]
        with Relay() as relay:
            (span,) = read_all(relay, chunk(tmp_path, 0, events))
            assert (relay.stats.invalid_fields, relay.stats.unknown_resources) == (1, 1)
        assert span.service_name == "unknown_service"

    def test_texts_that_are_not_utf8_are_repaired(self, tmp_path):
        spans, _ = read_events(
            tmp_path,
            event(
                "scope", 0, instance_id=INSTANCE, scope_id=2, name=b"a\xc0\xafb", version=b"\xff"
            ),
            start(1, scope_id=2, op_name=b"caf\xe9 \xed\xa0\x80 \xc3\xa9"),
            event("span_event", 1, span_id=1, name=b"\xf8"),
            end(1, status=2, status_message=b"\xe2\x82"),
        )
        (span,) = spans
        assert (
            span.name,
            span.status_message,
        ) == ("caf\ufffd \ufffd\ufffd\ufffd é", "\ufffd\ufffd")
        assert (span.scope_name, span.scope_version) == ("a\ufffd\ufffdb", "\ufffd")
        assert span.events[0].name == "\ufffd"

    def test_numbers_without_a_meaning(self, tmp_path):
        spans, relay = read_events(
            tmp_path,
            start(1, kind=77, start_time=-5),
            end(1, status=9, end_time=-1),
            start(0, MS),
            start(2, MS, trace_id_high=0, trace_id_low=0),
        )
        (span,) = spans
        assert (span.kind, span.status, span.duration_ns) == ("INTERNAL", "UNSET", MS)
        assert relay.stats.invalid_events == 2

    @pytest.mark.parametrize("name", LAYOUTS)
    @pytest.mark.parametrize("change", ["type", "missing", "text", "empty"])
    def test_events_with_another_layout_are_counted(self, tmp_path, name, change):
        field, kind = next(iter(LAYOUTS[name].items()))
        layout = {**LAYOUTS[name]}
        if change == "type":
            layout[field] = "i" + kind[1:]
        elif change == "text":
            layout[field] = "text"
        elif change == "missing":
            del layout[field]
        else:
            layout.clear()
        write_trace(tmp_path / "trace", [[Event(BASE_NS, name, {})]], {**LAYOUTS, name: layout})
        with Relay() as relay:
            assert read_all(relay, tmp_path) == []
            assert (relay.stats.events, relay.stats.invalid_events) == (1, 1)

    def test_events_of_others_are_ignored(self, tmp_path):
        layouts = {**LAYOUTS, "other:start_span": {"x": "u8"}, "k8s_tracing:new": {"y": "text"}}
        others = [Event(BASE_NS, name, {}) for name in ("other:start_span", "k8s_tracing:new")]
        write_trace(tmp_path / "trace", [[*announced(), *others, start(1), end(1)]], layouts)
        with Relay() as relay:
            assert len(read_all(relay, tmp_path)) == 1
            assert (relay.stats.events, relay.stats.invalid_events) == (4, 0)

    def test_one_span_does_not_grow_without_bound(self, tmp_path):
        told = Span.Event()
        told.attributes.add(key="k").value.string_value = "v" * 50_000
        many = [
            event("span_event", n, span_id=1, name="e", attributes=told.SerializeToString())
            for n in range(40)
        ]
        spans, _ = read_events(tmp_path, start(1), *many, end(1))
        kept = len(spans[0].events)
        assert 15 < kept < 22
        assert spans[0].dropped_events == 40 - kept

    def test_open_spans_do_not_take_more_memory_than_allowed(self, tmp_path):
        many = [start(n, n) for n in range(1, 2001)]
        with Relay(memory_bytes=500_000) as relay:
            spans = decode(relay.read(chunk(tmp_path, 0, [*announced(), *many])))
            evicted = relay.stats.evicted
            assert 500 < evicted == len(spans)
            assert {f"span {n}" for n in range(1, evicted + 1)} == {span.name for span in spans}
            assert all(span.unfinished for span in spans)
            assert relay.stats.open_spans == 2000 - evicted

    def test_orphans_give_way_before_open_spans(self, tmp_path):
        flood = [end(n, n) for n in range(10_000, 13_000)]
        events = [*announced(), start(1), *flood, end(1, S)]
        with Relay(memory_bytes=500_000) as relay:
            assert [s.name for s in read_all(relay, chunk(tmp_path, 0, events))] == ["span 1"]
            assert (relay.stats.evicted, relay.stats.ends_without_start) == (0, 3000)

    def test_processes_without_number(self, tmp_path):
        """Those past the limit are the unknown one; none is lost."""
        events = announced()
        for n in range(1, 2001):
            events += [start(n, n, instance_id=n << 32, scope_id=n % 1024), end(n, n)]
        events += [start(5000, S), end(5000, S)]
        with Relay(memory_bytes=500_000) as relay:
            spans = by_name(read_all(relay, chunk(tmp_path, 0, events)))
        assert len(spans) == 2001
        assert spans["span 5000"].service_name == "shop"


class TestRequests:
    """Requests hold whole spans, and as many as fit."""

    @pytest.mark.parametrize("limit", [1, 1000, 20_000, 1 << 20])
    def test_size_is_bounded(self, tmp_path, limit):
        events = announced()
        for n in range(1, 201):
            events += [start(n, n), end(n, n, attributes=attributes(key="v" * (n % 7 * 100)))]
        with Relay(request_bytes=limit) as relay:
            requests = [*relay.read(chunk(tmp_path, 0, events)), *relay.finish()]
        assert len(by_name(decode(requests))) == 200
        for request in requests:
            assert len(request.body) <= limit or request.spans == 1
        assert len(requests) <= 200 * 1000 / limit + 2 or limit < 1000

    def test_spans_that_waited_are_split_into_requests(self, tmp_path):
        events = [each for n in range(1, 101) for each in (start(n, n), end(n, n))]
        first = chunk(tmp_path, 0, [*events, start(999, S)])
        second = chunk(tmp_path, 1, announced(2 * S))
        with Relay(request_bytes=2000) as relay:
            assert list(relay.read(first)) == []
            requests = list(relay.read(second))
        assert len(by_name(decode(requests))) == 100
        assert max(len(request.body) for request in requests) <= 2000
        assert len(requests) < 10


class TestFolders:
    """What is not a whole trace is an error that says so, after what can be read of the rest."""

    def test_no_trace(self, tmp_path):
        with Relay() as relay, pytest.raises(RelayError, match="no LTTng trace in"):
            list(relay.read(tmp_path))

    def test_metadata_without_a_stream(self, tmp_path):
        write_trace(tmp_path / "trace", [])
        with Relay() as relay:
            assert read_all(relay, tmp_path) == []

    def test_empty_stream(self, tmp_path):
        write_trace(tmp_path / "trace", [[*announced(), start(1), end(1)]])
        (tmp_path / "trace" / "channel_7").touch()
        with Relay() as relay:
            assert len(read_all(relay, tmp_path)) == 1

    @pytest.mark.parametrize("content", [b"", b"\0", b"/* CTF 1.8 */ event {", b"\xd1\x1d\xc5\x75"])
    def test_bad_metadata(self, tmp_path, content):
        write_trace(tmp_path / "bad", [[start(1)]])
        (tmp_path / "bad" / "metadata").write_bytes(content)
        with Relay() as relay, pytest.raises(RelayError, match=r"cannot read .*bad: .+"):
            list(relay.read(tmp_path))

    @pytest.mark.parametrize("size", [1, 40, 83, 200])
    def test_truncated_stream(self, tmp_path, size):
        events = [*announced(), *(start(n, n) for n in range(1, 50))]
        write_trace(tmp_path / "trace", [events])
        stream = tmp_path / "trace" / "channel_0"
        stream.write_bytes(stream.read_bytes()[:size])
        with Relay() as relay, pytest.raises(RelayError, match=r"cannot read .*trace"):
            list(relay.read(tmp_path))

    def test_a_bad_trace_does_not_stop_the_others(self, tmp_path):
        for name in ("a", "c"):
            write_trace(tmp_path / name, [[*announced(), start(ord(name)), end(ord(name))]])
        write_trace(tmp_path / "b", [[start(1)]])
        (tmp_path / "b" / "metadata").write_text("no")
        with Relay() as relay:
            with pytest.raises(RelayError, match=r"cannot read .*/b"):
                list(relay.read(tmp_path))
            assert len(decode(relay.finish())) == 2

    def test_losses_are_counted(self, tmp_path):
        packets = [
            Packet([*announced()], events_discarded=5, number=3),
            Packet([start(1)], events_discarded=8, number=4),
            Packet([end(1)], events_discarded=8, number=7),
        ]
        write_trace(tmp_path / "trace", [packets])
        with Relay() as relay:
            assert len(read_all(relay, tmp_path)) == 1
            assert (relay.stats.discarded_events, relay.stats.lost_packets) == (3, 2)

    def test_a_closed_chunk_can_be_read_again(self, tmp_path):
        folder = chunk(tmp_path, 0, [*announced(), start(1), end(1)])
        with Relay() as relay:
            next(iter(relay.read(folder)), None)
            copy = shutil.copytree(folder, tmp_path / "copy")
            read_all(relay, copy)
            assert relay.stats.spans == 1
