"""The page's modules that draw nothing: called in the browser, for which they are made, with data from here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from k8s_tracing import jaeger
from k8s_tracing.record import UNFINISHED, LinkRecord, SpanRecord

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
MS = 1_000_000
START_NS = 1_771_000_000_000 * MS

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def call(browser: Browser, static: str) -> Iterator[Call]:
    """`call("format.js", "m.duration(data)", 5)`: an expression with a module as `m`, and data as `data`."""
    page = browser.new_page()
    page.goto(static)

    def run(module: str, expression: str, data: Any = None) -> Any:
        imported = f"const m = await import('/{module}');"
        return page.evaluate(f"async (data) => {{ {imported} return {expression}; }}", data)

    yield run
    page.close()


def span(span_id: str, start_ms: float, end_ms: float, parent: str = "", **more: Any) -> SpanRecord:
    service, node = more.pop("service", "shop"), more.pop("node", "")
    resource = {"service.name": service} | ({"k8s.node.name": node} if node else {})
    return SpanRecord(
        trace_id=TRACE,
        span_id=span_id.rjust(16, "0"),
        name=more.pop("name", f"span {span_id}"),
        start_time_ns=START_NS + round(start_ms * MS),
        end_time_ns=START_NS + round(end_ms * MS),
        parent_span_id=parent and parent.rjust(16, "0"),
        resource=resource,
        **more,
    )


def traced(*spans: SpanRecord) -> dict[str, Any]:
    return jaeger.to_trace(spans)


#: JavaScript: a trace as the page has it, of a `data` in Jaeger's JSON.
AS_TREE = "(await import('/trace.js')).toTrace(data)"
SHORT = "(span) => span.id.replace(/^0+/, '')"


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 µs"),
        (0.25, "250 ns"),
        (1, "1 µs"),
        (999.4, "999 µs"),
        (999.6, "1 ms"),
        (1_500, "1.5 ms"),
        (712_000, "712 ms"),
        (1_234_567, "1.23 s"),
        (59_999_000, "60 s"),
        (61_000_000, "1m 1s"),
        (3_600_000_000, "1h"),
        (90_061_000_000, "1d 1h"),
        (-2_000, "\u22122 ms"),
    ],
)
def test_durations(call: Call, us: float, text: str) -> None:
    assert call("format.js", "m.duration(data)", us) == text


def test_durations_that_a_person_types(call: Call) -> None:
    typed = ["1.2s", "100ms", " 500 us ", "3µs", "2m", "5", "ms", "1e3s", "-1s"]
    read = [1_200_000, 100_000, 500, 3, 120_000_000, None, None, None, None]
    assert (
        call("format.js", "data.map(m.parseDuration).map((v) => v >= 0 ? v : null)", typed) == read
    )


def test_marks_of_an_axis_are_round(call: Call) -> None:
    assert call("format.js", "m.ticks(0, 1000, 4)") == [0, 500, 1000]
    assert call("format.js", "m.ticks(12, 31, 5)") == [15, 20, 25, 30]
    assert call("format.js", "m.ticks(5, 5, 4)") == [5]


def test_tags_of_the_form_and_back(call: Call) -> None:
    text = 'error=true http.route="/a b" quote="say \\"hi\\""'
    tags = {"error": "true", "http.route": "/a b", "quote": 'say "hi"'}
    assert call("tags.js", "({...m.parseTags(data)})", text) == tags
    assert call("tags.js", "m.formatTags(data)", tags) == text
    assert call("tags.js", "Object.keys(m.parseTags('__proto__=x'))") == ["__proto__"]


@pytest.mark.parametrize("text", ["error", "=x", 'a="b', "a=b c"])
def test_what_is_no_tag_is_said(call: Call, text: str) -> None:
    said = call(
        "tags.js", "(() => { try { m.parseTags(data); } catch (e) { return e.message; } })()", text
    )
    assert said.startswith("Tags are written key=value")


def of_spans(call: Call, expression: str, trace: dict[str, Any]) -> Any:
    """What an expression says of each span `s`, in the order of the rows."""
    each = f"((id) => m.toTrace(data).spans.map((s) => {expression}))({SHORT})"
    return call("trace.js", each, trace)


def test_a_tree_is_in_the_order_of_its_rows(call: Call) -> None:
    trace = traced(
        span("c", 40, 50, "a"),
        span("a", 0, 100),
        span("d", 12, 20, "b"),
        span("b", 10, 30, "a", service="db"),
    )
    assert of_spans(call, "[id(s), s.depth, s.after, s.start]", trace) == [
        ["a", 0, 4, 0],
        ["b", 1, 3, 10_000],
        ["d", 2, 3, 12_000],
        ["c", 1, 4, 40_000],
    ]
    facts = "(({duration, depth, services}) => [duration, depth, [...services]])(m.toTrace(data))"
    assert call("trace.js", facts, trace) == [100_000, 3, [["shop", 3], ["db", 1]]]


def test_no_span_vanishes(call: Call) -> None:
    """One whose parent is missing, spans that are each other's parents, and two with one id all have a row."""
    twice = span("f", 1, 2, "a")
    trace = traced(
        span("a", 0, 10),
        span("b", 1, 2, "lost"),
        span("c", 3, 9, "d"),
        span("d", 4, 8, "c"),
        span("e", 5, 6, "e"),
        twice,
        twice,
    )
    rows = of_spans(call, "[id(s), s.depth, Boolean(s.missingParent)]", trace)
    assert sorted(rows) == [
        ["a", 0, False],
        ["b", 0, True],
        ["c", 0, True],
        ["d", 1, False],
        ["e", 0, True],
        ["f", 1, False],
        ["f", 1, False],
    ]


def test_errors_below_are_counted(call: Call) -> None:
    trace = traced(
        span("a", 0, 10), span("b", 1, 9, "a", status="ERROR"), span("c", 2, 8, "b", status="ERROR")
    )
    assert of_spans(call, "s.errorsBelow", trace) == [2, 1, 0]


def test_links_are_what_is_not_the_parent(call: Call) -> None:
    other = "0af7651916cd43dd8448eb211c80319c"
    trace = traced(
        span("a", 0, 10), span("b", 1, 9, "a", links=(LinkRecord(other, "00f067aa0ba902b7"),))
    )
    assert of_spans(call, "s.links.map((l) => l.traceID)", trace) == [[], [other]]


def test_parts_of_a_spans_time(call: Call) -> None:
    attributes = {
        "k8s_tracing.cpu.throttled_ns": 3000,
        "k8s_tracing.cpu.running_ns": 2000,
        "k8s_tracing.ingress.odd_part_ns": 7000,
        "k8s_tracing.ingress.queue_ns": 1000,
        "k8s_tracing.cpu.blocked_ns": -5,
        "k8s_tracing.lost_events": 4,
    }
    [raw] = traced(span("a", 0, 1, attributes=attributes))["spans"]
    shown = "m.partsOf(data).map((g) => [g.label, g.total, g.parts.map((p) => [p.label, p.us])])"
    groups = call("parts.js", shown, raw["tags"])
    assert sorted(groups) == [
        ["Container", 5, [["on CPU", 2], ["throttled", 3]]],
        ["Ingress", 8, [["queue", 1], ["odd part", 7]]],
    ]


def call_across_nodes(offset_ms: float) -> dict[str, Any]:
    """A client on one node calls a server on another whose clock is ahead by this."""
    return traced(
        span("a", 0, 100, kind="CLIENT", node="n1"),
        span("b", 20 + offset_ms, 80 + offset_ms, "a", kind="SERVER", node="n2"),
        span("c", 30 + offset_ms, 50 + offset_ms, "b", node="n2"),
    )


@pytest.mark.parametrize(("offset_ms", "found"), [(0, None), (-50, [30_000, 0]), (40, [0, 20_000])])
def test_skew_is_found(call: Call, offset_ms: float, found: list[int] | None) -> None:
    skews = f"{AS_TREE}.spans.map((s) => m.skewOf(s)).map((k) => k && [k.before, k.after])"
    assert call("skew.js", skews, call_across_nodes(offset_ms)) == [None, found, None]


def test_work_after_the_answer_is_no_skew(call: Call) -> None:
    """On one node, and between a span and one that it did not wait for."""
    late = traced(span("a", 0, 10), span("b", 5, 50, "a"))
    assert call("skew.js", f"{AS_TREE}.spans.map((s) => m.skewOf(s))", late) == [None, None]


@pytest.mark.parametrize(
    ("offset_ms", "shift"), [(0, {}), (-50, {"n2": 50_000}), (500, {"n2": -500_000})]
)
def test_clocks_are_adjusted_by_node(call: Call, offset_ms: float, shift: dict[str, int]) -> None:
    """Half of what is left over is the way there, half the way back."""
    shifts = call(
        "skew.js", f"Object.fromEntries(m.clockShifts({AS_TREE}))", call_across_nodes(offset_ms)
    )
    assert shifts == shift


def test_adjusted_clocks_move_whole_nodes_and_back(call: Call) -> None:
    adjust = f"""((trace) => {{
        const shifts = m.clockShifts(trace);
        return [shifts, new Map()].map((by) => {{
            m.applyShifts(trace, by);
            return [trace.spans.map((s) => s.start), trace.duration];
        }});
    }})({AS_TREE})"""
    expected = [[[0, 20_000, 30_000], 100_000], [[30_000, 0, 10_000], 130_000]]
    assert call("skew.js", adjust, call_across_nodes(-50)) == expected


def in_tree(call: Call, code: str) -> Any:
    """What code returns that has a `tree`, its `trace`, `id` of a span and the `ids` of the rows."""
    trace = traced(
        span("a", 0, 100, name="root"),
        span("b", 1, 50, "a", service="db", attributes={"db.query.text": "SELECT 1"}),
        span("c", 2, 20, "b"),
        span("d", 60, 90, "a", status="ERROR"),
        span("e", 61, 80, "d", name="SELECT"),
    )
    given = f"""
        const trace = {AS_TREE};
        const tree = new m.Tree(trace);
        const id = {SHORT};
        const ids = () => tree.rows().map(id).join("");
    """
    return call("tree.js", f"await (async () => {{ {given} {code} }})()", trace)


def test_levels_collapse_from_below_and_expand_from_above(call: Call) -> None:
    steps = """
        const seen = [ids()];
        for (const step of ["collapseLevel", "collapseLevel", "expandLevel", "expandAll", "collapseAll"]) {
            tree[step]();
            seen.push(ids());
        }
        return seen;
    """
    assert in_tree(call, steps) == ["abcde", "abd", "a", "abd", "abcde", "a"]


def test_find_looks_everywhere_and_for_every_word(call: Call) -> None:
    found = """
        const texts = ["select", "SELECT db", "db.query.text=select", "zzz", ""];
        return texts.map((text) => [...m.find(trace, text)].map(id).join(""));
    """
    assert in_tree(call, found) == ["be", "b", "b", "", ""]


def test_a_filter_leaves_the_way_to_what_is_found(call: Call) -> None:
    filtered = """
        tree.collapseAll();
        tree.filter(m.find(trace, "SELECT"));
        const seen = ids();
        tree.filter(null);
        return [seen, ids()];
    """
    assert in_tree(call, filtered) == ["abde", "a"]


def test_the_next_error_is_found_around_the_end(call: Call) -> None:
    steps = """
        const [a, , , d, e] = trace.spans;
        const from = [[null, 1], [d, 1], [e, 1], [a, -1]];
        return from.map(([span, step]) => id(tree.next(span, step, (s) => s.error)));
    """
    assert in_tree(call, steps) == ["d", "d", "d", "d"]


def test_what_lies_closer_than_a_pixel_is_drawn_as_one(call: Call) -> None:
    intervals = [[50, 60], [0, 10], [11, 12], [5, 30], [31, 32]]
    assert call("intervals.js", "m.joined(data, 1)", intervals) == [[0, 32], [50, 60]]
    assert call("intervals.js", "m.joined(data, 0)", intervals) == [[0, 30], [31, 32], [50, 60]]


def test_a_comparison(call: Call) -> None:
    a = traced(
        span("1", 0, 100, name="root"),
        span("2", 0, 10, "1", name="get"),
        span("3", 20, 30, "1", name="get"),
        span("4", 40, 50, "1", name="gone"),
    )
    b = traced(
        span("1", 0, 104, name="root"),
        span("2", 0, 30, "1", name="get"),
        span("3", 40, 60, "1", name="get"),
        span("4", 70, 80, "2", name="new"),
    )
    rows = """await (async () => {
        const { toTrace } = await import("/trace.js");
        const rows = m.diff(...data.map(toTrace));
        return rows.map((r) => [r.name, r.depth, r.spans.map((s) => s.length), r.verdict, r.delta]);
    })()"""
    assert call("diff.js", rows, [a, b]) == [
        ["root", 0, [1, 1], "same", 4_000],
        ["get", 1, [2, 2], "slower", 30_000],
        ["new", 2, [0, 1], "only-b", 10_000],
        ["gone", 1, [1, 0], "only-a", -10_000],
    ]


def test_a_graph_has_callers_to_the_left(call: Call) -> None:
    calls = [("b", "c"), ("a", "b"), ("a", "c"), ("c", "a"), ("b", "b"), ("a", "d")]
    dependencies = [{"parent": p, "child": c, "callCount": 1} for p, c in calls]
    layers = call("graph.js", "m.layOut(data).layers.map((l) => [...l].sort())", dependencies)
    assert layers == [["a"], ["b", "d"], ["c"]]
    assert call("graph.js", "[m.layOut([]).layers, [...m.layOut(data).self]]", dependencies) == [
        [],
        [["b", 1]],
    ]


def test_services_have_different_colours_and_keep_them(call: Call) -> None:
    """As long as there are colours left; a service that comes later changes none."""
    names = [f"service-{number}" for number in range(12)]
    grow = """(() => {
        const known = new Map();
        m.assign(data.slice(0, 5), known);
        const early = [...known];
        m.assign(data, known);
        const kept = early.every(([name, color]) => known.get(name) === color);
        return [kept, new Set(known.values()).size];
    })()"""
    assert call("colors.js", grow, names) == [True, 12]


def test_unfinished_and_lost_are_noticed(call: Call) -> None:
    trace = traced(span("a", 0, 10, attributes={UNFINISHED: True, "k8s_tracing.lost_events": 7}))
    assert of_spans(call, "[s.unfinished, s.lost]", trace) == [[True, 7]]
