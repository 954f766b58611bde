"""What the relay tells a span of its thread: which spans, when, and nothing twice."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from k8s_tracing.agent.relay import Relay
from tests.support.ctf import Event, Packet, Style, write_trace
from tests.support.scheduler import (
    BOOT_ID,
    KEYS,
    PID_NS,
    SHARED,
    STYLE,
    VPID,
    Asked,
    FakeScheduler,
    chunk,
    counted,
    kinds,
    on,
    read,
    told,
)
from tests.support.spans import (
    BASE_NS,
    INSTANCE,
    MS,
    S,
    announced,
    attributes,
    decode,
    end,
    read_all,
    start,
)

BLOCKED = {"running_ns": 0, "blocked_ns": MS, "run_queue_ns": 0}


class TestWhatIsSaid:
    """The answer becomes attributes that add up to the span's duration."""

    @pytest.mark.parametrize(
        ("times_ns", "says"),
        [
            ((0, 0, -1), BLOCKED),
            ((0, 0, 0), {**BLOCKED, "throttled_ns": 0}),
            (
                (300_000, 200_000, -1),
                {"running_ns": 300_000, "blocked_ns": 500_000, "run_queue_ns": 200_000},
            ),
            (
                (300_000, 200_000, 500_000),
                {
                    "running_ns": 300_000,
                    "blocked_ns": 0,
                    "run_queue_ns": 200_000,
                    "throttled_ns": 500_000,
                    "summary": "needed 0.3 ms of CPU, was throttled 0.5 ms",
                },
            ),
            # more than there was
            (
                (900_000, 900_000, 900_000),
                {"running_ns": 900_000, "blocked_ns": 0, "run_queue_ns": 100_000}
                | {"throttled_ns": 0},
            ),
            ((2 * MS, 5, -1), {"running_ns": MS, "blocked_ns": 0, "run_queue_ns": 0}),
            ((-5, -5, -5), BLOCKED),
        ],
    )
    def test_the_parts(self, tmp_path, times_ns, says):
        scheduler = FakeScheduler(times_ns)
        spans, stats = read(tmp_path, *on(1, start(7), end(7)), scheduler=scheduler)
        assert told(spans) == {7: says}
        assert counted(stats) == (1, 0, 0)

    def test_in_words_as_the_application_would_say_it(self, tmp_path):
        scheduler = FakeScheduler((100 * MS, 0, 339 * MS))
        spans, _ = read(tmp_path, *on(1, start(7), end(7, S)), scheduler=scheduler)
        assert told(spans)[7]["summary"] == "needed 100 ms of CPU, was throttled 339 ms"

    def test_beside_what_else_the_span_has(self, tmp_path):
        last = end(7, status=2, status_message="bad", op_name="new", attributes=attributes(a="b"))
        (span,), _ = read(tmp_path, *on(1, start(7, op_name="old"), last))
        assert span.attributes == {"a": "b", **{KEYS + key: BLOCKED[key] for key in BLOCKED}}
        assert (span.name, span.status_message) == ("new", "bad")

    def test_asked_is_the_thread_by_the_kernel_s_clock(self, tmp_path):
        """The offset, which makes it the time of day, is not in it."""
        scheduler = FakeScheduler()
        events = on(9, start(7), end(7, 3 * MS))
        style = replace(STYLE, clock_offset_s=1000)
        spans, _ = read(tmp_path, *events, scheduler=scheduler, style=style)
        assert scheduler.asked == [Asked(PID_NS, VPID, 9, BASE_NS, BASE_NS + 3 * MS)]
        assert spans[0].start_time_ns == BASE_NS + 1000 * S

    def test_the_clock_was_set_meanwhile(self, tmp_path):
        """Another session has another offset."""
        first = chunk(tmp_path / "1", on(1, *announced(), start(7)))
        later = replace(STYLE, clock_offset_s=-3600)
        second = chunk(tmp_path / "2", on(1, end(7, 5 * MS)), style=later)
        scheduler = FakeScheduler()
        with Relay(cpu_times=scheduler.times(MS)) as relay:
            (span,) = read_all(relay, first, second)
        assert told([span])[7]["blocked_ns"] == 5 * MS
        assert [(each.begin_ns, each.end_ns) for each in scheduler.asked] == [
            (BASE_NS, BASE_NS + 5 * MS)
        ]

    def test_what_the_scheduler_does_not_know_is_counted(self, tmp_path):
        scheduler = FakeScheduler(None)
        spans, stats = read(tmp_path, *on(1, start(7), end(7)), scheduler=scheduler)
        assert told(spans) == {7: {}}
        assert counted(stats) == (0, 0, 1)


class TestWhichSpans:
    """What is not a thread's time between two events is not told."""

    def nothing(self, folder: Path, *events: Event, style: Style = STYLE) -> None:
        """Of span 7 nothing is told, nobody is asked, and nothing is counted."""
        scheduler = FakeScheduler()
        spans, stats = read(folder, *events, scheduler=scheduler, style=style)
        assert told(spans)[7] == {}
        assert scheduler.asked == []
        assert counted(stats) == (0, 0, 0)

    def test_every_span_of_a_trace(self, tmp_path):
        """An ancestor's time includes its descendants'."""
        nested = [start(1, 0), start(2, 1, parent_span_id=1), start(3, 2, parent_span_id=2)]
        ends = [end(3, 3), end(2, 4), start(4, 5, parent_span_id=1), end(4, 6), end(1, 7)]
        spans, stats = read(tmp_path, *on(1, *nested, *ends))
        assert set(kinds(spans).values()) == {"told"}
        assert counted(stats) == (4, 0, 0)

    def test_only_if_somebody_wants_it(self, tmp_path):
        with Relay() as relay:
            spans = read_all(relay, chunk(tmp_path, on(1, *announced(), start(7), end(7))))
            assert told(spans) == {7: {}}
            assert counted(relay.stats) == (0, 0, 0)

    def test_not_even_of_a_clock_without_an_id(self, tmp_path):
        style = replace(STYLE, clock_uuid=UUID(int=0))
        with Relay() as relay:
            path = chunk(tmp_path, on(1, *announced(), start(7), end(7)), style=style)
            assert told(read_all(relay, path)) == {7: {}}

    @pytest.mark.parametrize(("duration_ns", "kind"), [(MS, "told"), (MS - 1, "nothing")])
    def test_of_that_length(self, tmp_path, duration_ns, kind):
        spans, _ = read(tmp_path, *on(1, start(7), end(7, duration_ns)), shortest_ns=MS)
        assert kinds(spans) == {7: kind}

    def test_not_one_that_ended_on_another_thread(self, tmp_path):
        self.nothing(tmp_path, *on(1, start(7)), *on(2, end(7)))

    def test_not_one_that_another_process_ended(self, tmp_path):
        self.nothing(tmp_path, *on(1, start(7)), *on(1, end(7), vpid=VPID + 1))

    def test_not_one_that_another_container_ended(self, tmp_path):
        self.nothing(tmp_path, *on(1, start(7)), *on(1, end(7), pid_ns=PID_NS + 1))

    def test_not_one_that_somebody_recorded_in_another_s_name(self, tmp_path):
        self.nothing(tmp_path, *on(1, start(7), end(7), pid_ns=PID_NS + 1))

    def test_not_one_of_a_process_that_nobody_announced(self, tmp_path):
        self.nothing(tmp_path, *on(1, start(7, instance_id=INSTANCE + 1), end(7)))

    @pytest.mark.parametrize("given", ["start", "end"])
    def test_not_one_with_a_time_that_the_application_gave(self, tmp_path, given):
        first = start(7, start_time=BASE_NS - S) if given == "start" else start(7)
        last = end(7, end_time=BASE_NS + S) if given == "end" else end(7)
        self.nothing(tmp_path, *on(1, first, last))

    def test_not_one_whose_end_came_first(self, tmp_path):
        scheduler = FakeScheduler()
        paths = [
            chunk(tmp_path / "1", on(1, *announced(), end(7, 5 * MS))),
            chunk(tmp_path / "2", on(1, start(7))),
        ]
        with Relay(cpu_times=scheduler.times()) as relay:
            assert told(read_all(relay, *paths)) == {7: {}}
        assert scheduler.asked == []

    def test_not_one_without_an_end(self, tmp_path):
        self.nothing(tmp_path, *on(1, start(7)))

    @pytest.mark.parametrize("missing", ["vpid", "vtid", "pid_ns"])
    def test_not_where_nobody_asked_for_the_contexts(self, tmp_path, missing):
        layout = {name: kind for name, kind in STYLE.context.items() if name != missing}
        events = [
            Event(each.time_ns, each.name, each.fields, {k: each.context[k] for k in layout})
            for each in on(1, *announced(), start(7), end(7))
        ]
        scheduler = FakeScheduler()
        with Relay(cpu_times=scheduler.times()) as relay:
            path = chunk(tmp_path, events, style=replace(STYLE, context=layout))
            assert told(read_all(relay, path)) == {7: {}}
        assert scheduler.asked == []

    @pytest.mark.parametrize("uuid", [None, UUID(int=BOOT_ID.int ^ 1), UUID(int=0)])
    def test_not_where_the_clock_is_not_this_boot_s(self, tmp_path, uuid):
        events = on(1, start(7), end(7))
        self.nothing(tmp_path, *events, style=replace(STYLE, clock_uuid=uuid))

    @pytest.mark.parametrize("key", ["running_ns", "shared"])
    @pytest.mark.parametrize("before", [{}, {"a": "b", "k8s_tracing.cp": "u.running_ns"}])
    def test_not_one_that_the_application_has_told(self, tmp_path, key, before):
        last = end(7, attributes=attributes(**before, **{KEYS + key: "its own"}))
        scheduler = FakeScheduler()
        spans, stats = read(tmp_path, *on(1, start(7), last), scheduler=scheduler)
        assert told(spans) == {7: {key: "its own"}}
        assert (scheduler.asked, counted(stats)) == ([], (0, 0, 0))

    def test_a_key_in_a_value_is_none(self, tmp_path):
        last = end(7, attributes=attributes(a=KEYS + "running_ns"))
        spans, _ = read(tmp_path, *on(1, start(7), last))
        assert kinds(spans) == {7: "told"}

    def test_a_long_key(self, tmp_path):
        last = end(7, attributes=attributes(**{KEYS + "x" * 300: ""}))
        assert read(tmp_path, *on(1, start(7), last))[1].cpu_told == 0


class TestNeverTwice:
    """Spans of which none is the other's ancestor, open on a thread at the same time, share it."""

    def test_one_after_another(self, tmp_path):
        spans, _ = read(tmp_path, *on(1, start(1), end(1, 1), start(2, 2), end(2, 3)))
        assert kinds(spans) == {1: "told", 2: "told"}

    def test_two_requests_of_an_event_loop(self, tmp_path):
        spans, stats = read(tmp_path, *on(1, start(1), start(2, 1), end(1, 2), end(2, 3)))
        assert told(spans) == {1: SHARED, 2: SHARED}
        assert counted(stats) == (0, 2, 0)

    def test_two_threads(self, tmp_path):
        events = [*on(1, start(1)), *on(2, start(2, 1)), *on(1, end(1, 2)), *on(2, end(2, 3))]
        assert kinds(read(tmp_path, *events)[0]) == {1: "told", 2: "told"}

    @pytest.mark.parametrize("other", [{"vpid": VPID + 1}, {"pid_ns": PID_NS + 1}])
    def test_threads_of_the_same_number_in_two_processes(self, tmp_path, other):
        events = [
            *on(1, *announced(0, "other", 99), **other),
            *on(1, start(1)),
            *on(1, start(2, 1, instance_id=99), **other),
            *on(1, end(1, 2)),
            *on(1, end(2, 3), **other),
        ]
        assert kinds(read(tmp_path, *events)[0]) == {1: "told", 2: "told"}

    def test_too_short_to_be_told_but_there(self, tmp_path):
        events = on(1, start(1), start(2, 1), end(2, 2), end(1, MS))
        spans, stats = read(tmp_path, *events, shortest_ns=MS)
        assert told(spans) == {1: SHARED, 2: {}}
        assert counted(stats) == (0, 1, 0)

    def test_a_span_that_is_not_told_is_there_all_the_same(self, tmp_path):
        """Its times are given, so what it says it was is not when it ran; the thread was not free."""
        first = start(1, start_time=BASE_NS - S)
        spans, _ = read(tmp_path, *on(1, first, start(2, 1), end(2, 2), end(1, 3)))
        assert told(spans) == {1: {}, 2: SHARED}

    def test_siblings_at_the_same_time_leave_their_parent_its_time(self, tmp_path):
        """asyncio.gather in a request that is alone: its time is known, how it is divided is not."""
        starts = [start(1), start(2, 1, parent_span_id=1), start(3, 2, parent_span_id=1)]
        events = on(1, *starts, end(2, 3), end(3, 4), end(1, 5))
        assert kinds(read(tmp_path, *events)[0]) == {1: "told", 2: "shared", 3: "shared"}

    def test_a_child_is_shared_with_another_request_s_span(self, tmp_path):
        starts = [start(1), start(2, 1, parent_span_id=1), start(3, 2)]
        child = [start(4, 3, parent_span_id=2), end(4, 4)]
        spans, _ = read(tmp_path, *on(1, *starts, *child, end(3, 5), end(2, 6), end(1, 7)))
        assert set(kinds(spans).values()) == {"shared"}

    def test_alone_again(self, tmp_path):
        """What began after the other request was over had the thread for itself, though its parent did not."""
        events = [start(1), start(2, 1), end(2, 2), start(3, 3, parent_span_id=1), end(3, 4)]
        spans, _ = read(tmp_path, *on(1, *events, end(1, 5)))
        assert kinds(spans) == {1: "shared", 2: "shared", 3: "told"}

    @pytest.mark.parametrize(("depth", "kind"), [(2, "told"), (64, "told"), (65, "shared")])
    def test_alone_again_below_many_that_were_not(self, tmp_path, depth, kind):
        """So many ancestors are followed to see that all that is open is one."""
        starts = [start(n, n, parent_span_id=n - 1) for n in range(1, depth + 1)]
        other = [start(500, 500), end(500, 501)]
        last = [start(501, 502, parent_span_id=depth), end(501, 503)]
        ends = [end(n, 600 - n) for n in range(depth, 0, -1)]
        said = kinds(read(tmp_path, *on(1, *starts, *other, *last, *ends))[0])
        assert said.pop(501) == kind
        assert set(said.values()) == {"shared"}

    def test_a_parent_that_ended_before_its_child(self, tmp_path):
        """What the child begins is the first one's descendant all the same."""
        starts = [start(n, n, parent_span_id=n - 1) for n in (1, 2, 3)]
        events = on(1, *starts, end(2, 4), start(4, 5, parent_span_id=3))
        spans, _ = read(tmp_path, *events, *on(1, end(4, 6), end(3, 7), end(1, 8)))
        assert set(kinds(spans).values()) == {"told"}

    def test_a_child_of_the_newer_of_two_requests_is_not_alone(self, tmp_path):
        """The older one may have had the thread meanwhile."""
        starts = [start(1), start(2, 1), start(3, 2, parent_span_id=2)]
        spans, _ = read(tmp_path, *on(1, *starts, end(3, 3), end(2, 4), end(1, 5)))
        assert set(kinds(spans).values()) == {"shared"}

    def test_a_parent_on_another_thread_is_none_here(self, tmp_path):
        events = [
            *on(1, start(1)),
            *on(2, start(2, 1)),
            *on(2, start(3, 2, parent_span_id=1)),
            *on(2, end(3, 3), end(2, 4)),
            *on(1, end(1, 5)),
        ]
        assert kinds(read(tmp_path, *events)[0]) == {1: "told", 2: "shared", 3: "shared"}

    def test_work_that_was_handed_to_another_thread(self, tmp_path):
        events = [
            *on(1, start(1)),
            *on(2, start(2, 1, parent_span_id=1), start(3, 2, parent_span_id=2)),
            *on(2, end(3, 3), end(2, 4)),
            *on(1, end(1, 5)),
        ]
        assert kinds(read(tmp_path, *events)[0]) == {1: "told", 2: "told", 3: "told"}

    def test_a_span_of_another_trace_is_no_parent(self, tmp_path):
        starts = [start(1), start(2, 1, parent_span_id=1, trace_id_low=5)]
        events = on(1, *starts, end(2, 2, trace_id_low=5), end(1, 3))
        assert kinds(read(tmp_path, *events)[0]) == {1: "shared", 2: "shared"}

    def test_deep_nesting(self, tmp_path):
        depth = 500
        starts = [start(n, n, parent_span_id=n - 1) for n in range(1, depth + 1)]
        ends = [end(n, 2 * depth - n + 1) for n in range(depth, 0, -1)]
        spans, stats = read(tmp_path, *on(1, *starts, *ends))
        assert (len(spans), counted(stats)) == (depth, (depth, 0, 0))

    def test_parents_in_a_circle(self, tmp_path):
        starts = [
            start(1, 0, parent_span_id=2),
            start(2, 1, parent_span_id=3),
            start(3, 2, parent_span_id=3),
            start(4, 3, parent_span_id=1),
        ]
        ends = [end(n, 3 + n) for n in (1, 2, 3, 4)]
        assert set(kinds(read(tmp_path, *on(1, *starts, *ends))[0]).values()) == {"shared"}

    def test_many_requests_that_stay_open(self, tmp_path):
        """Websockets on an event loop."""
        many = 2_000
        starts = [start(n, n) for n in range(1, many + 1)]
        ends = [end(n, many + n) for n in range(1, many + 1)]
        assert read(tmp_path, *on(1, *starts, *ends))[1].cpu_shared == many

    def test_many_tasks_of_one_request(self, tmp_path):
        many = 2_000
        starts = [start(n, n, parent_span_id=1) for n in range(2, many + 1)]
        ends = [end(n, many + n) for n in range(many, 0, -1)]
        _, stats = read(tmp_path, *on(1, start(1), *starts, *ends))
        assert counted(stats) == (1, many - 1, 0)


class TestSpansThatGoAway:
    """A thread is not shared with what is not there any more."""

    def test_ended_on_another_thread(self, tmp_path):
        events = [*on(1, start(1)), *on(2, end(1, 1)), *on(1, start(2, 2), end(2, 3))]
        assert kinds(read(tmp_path, *events)[0]) == {1: "nothing", 2: "told"}

    def test_ended_in_a_folder_with_another_clock(self, tmp_path):
        first = chunk(tmp_path / "1", on(1, *announced(), start(1)))
        other = chunk(tmp_path / "2", on(1, end(1, 1)), style=replace(STYLE, clock_uuid=None))
        third = chunk(tmp_path / "3", on(1, start(2, 2), end(2, 3)))
        with Relay(cpu_times=FakeScheduler().times()) as relay:
            assert kinds(read_all(relay, first, other, third)) == {1: "nothing", 2: "told"}

    def test_the_process_is_gone(self, tmp_path):
        """Another one may have its numbers."""
        first = chunk(tmp_path / "1", on(1, *announced(), start(1)))
        again = on(1, *announced(S, instance_id=99), start(2, S, instance_id=99), end(2, 2 * S))
        third = chunk(tmp_path / "3", again)
        spans = []
        with Relay(cpu_times=FakeScheduler().times()) as relay:
            spans += decode(relay.read(first))
            relay.process_gone(INSTANCE)
            spans += decode(relay.read(chunk(tmp_path / "2", on(1, *announced(MS)))))
            spans += decode(relay.read(third)) + decode(relay.finish())
        assert kinds(spans) == {1: "nothing", 2: "told"}
        assert [span.unfinished for span in spans] == [True, False]

    def test_reported_as_unfinished(self, tmp_path):
        """Should it end after all, it is told nothing."""
        late = [start(2, 9 * S), end(2, 10 * S), end(1, 11 * S)]
        paths = [
            chunk(tmp_path / "1", on(1, *announced(), start(1), *announced(8 * S))),
            chunk(tmp_path / "2", on(1, *late)),
        ]
        with Relay(max_age_s=5, cpu_times=FakeScheduler().times()) as relay:
            spans = read_all(relay, *paths)
            stats = relay.stats
        assert (stats.unfinished, stats.completed) == (1, 1)
        assert [(span.unfinished, told([span])) for span in spans if span.name == "span 1"] == [
            (True, {1: {}}),
            (False, {1: {}}),
        ]
        assert kinds(spans)[2] == "told"

    def test_evicted(self, tmp_path):
        many = [start(n, n, op_name="x" * 1000) for n in range(1, 200)]
        alone = [start(500, S), end(500, 2 * S)]
        with Relay(memory_bytes=20_000, cpu_times=FakeScheduler().times()) as relay:
            spans = decode(relay.read(chunk(tmp_path, on(2, *announced(), *many))))
            ends = [end(n, 3 * S + n) for n in range(1, 200)]
            path = chunk(tmp_path / "2", on(1, *alone), on(2, *ends))
            spans += read_all(relay, path)
            assert relay.stats.evicted > 100
        assert kinds(spans)[500] == "told"
        assert {says for n, says in kinds(spans).items() if n < 500} <= {"shared", "nothing"}


class TestLosses:
    """Where events are missing, an end may be: what was open then is not told, and stands in nobody's way."""

    def kinds(self, folder: Path, *packets: Packet) -> dict[int, str]:
        with Relay(cpu_times=FakeScheduler().times()) as relay:
            return kinds(read_all(relay, chunk(folder, packets)))

    def test_what_was_open_is_not_told(self, tmp_path):
        first = Packet(on(1, *announced(), start(1)))
        second = Packet(on(1, end(1, S)), events_discarded=1, number=1)
        assert self.kinds(tmp_path, first, second) == {1: "nothing"}

    def test_what_began_meanwhile_is_not_told(self, tmp_path):
        """The events may have been lost at any time until the packet's end."""
        first = Packet(on(1, *announced()))
        events = on(1, start(1, S), end(1, 2 * S))
        second = Packet(events, events_discarded=1, number=1, end_ns=BASE_NS + 3 * S)
        assert self.kinds(tmp_path, first, second) == {1: "nothing"}

    def test_what_began_later_is_told(self, tmp_path):
        """The first span's end was lost; the thread is the second one's all the same."""
        first = Packet(on(1, *announced(), start(1)))
        second = Packet(on(1, start(3, S)), events_discarded=1, number=1, end_ns=BASE_NS + 2 * S)
        third = Packet(on(1, start(2, 3 * S), end(2, 4 * S)), events_discarded=1, number=2)
        said = self.kinds(tmp_path, first, second, third)
        assert said == {1: "nothing", 2: "told", 3: "nothing"}

    def test_lost_packets(self, tmp_path):
        first = Packet(on(1, *announced(), start(1)))
        second = Packet(on(1, end(1, S), start(2, 2 * S), end(2, 3 * S)), number=5)
        assert self.kinds(tmp_path, first, second) == {1: "nothing", 2: "told"}

    def test_of_other_buffers(self, tmp_path):
        lossy = [
            Packet(on(9, *announced(0, "other", 99), vpid=9)),
            Packet([], events_discarded=3, number=1, end_ns=BASE_NS + 9 * S),
        ]
        write_trace(tmp_path / "ust/uid/1/64-bit", [lossy], style=STYLE)
        path = chunk(tmp_path, on(1, *announced(), start(1), end(1, S)))
        with Relay(cpu_times=FakeScheduler().times()) as relay:
            assert kinds(read_all(relay, path)) == {1: "told"}
            assert relay.stats.discarded_events == 3

    def test_past_the_number_of_buffers_that_are_known_by_name(self, tmp_path):
        """A loss of any of the others counts for all of them."""
        lossy = [Packet([]), Packet([], events_discarded=3, number=1, end_ns=BASE_NS + 9 * S)]
        for number in range(300):
            write_trace(tmp_path / f"ust/pid/{number:03}/64-bit", [lossy], style=STYLE)
        path = chunk(
            tmp_path, on(1, *announced(), start(1), end(1, S), start(2, 10 * S), end(2, 11 * S))
        )
        with Relay(cpu_times=FakeScheduler().times()) as relay:
            assert kinds(read_all(relay, path)) == {1: "nothing", 2: "told"}
