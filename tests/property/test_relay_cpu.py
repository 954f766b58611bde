"""Who shares a thread with whom, against a model of the rule that looks at everything each time."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from k8s_tracing.agent.relay import Relay
from tests.support.ctf import Event, write_trace
from tests.support.scheduler import STYLE, FakeScheduler, on
from tests.support.spans import announced, decode, end, start

THREADS = (1, 2)


@dataclass(eq=False)
class Span:
    """A span of the model."""

    number: int
    parent: "Span | None"
    thread: int
    began: int
    ended: int = 1 << 62
    shared: bool = False
    told: str = "nothing"


@dataclass
class Model:
    """What was recorded, and what each span should say of it."""

    spans: list[Span] = field(default_factory=list)
    open: list[Span] = field(default_factory=list)

    def start(self, parent: Span | None, thread: int, now: int) -> Span:
        """Whatever is open on the thread is an ancestor, or shares it with the new one.

        Ancestors are followed while they are open there. One that is not shared has only ancestors of its own below.
        """
        span = Span(len(self.spans) + 1, parent, thread, now)
        here = [each for each in self.open if each.thread == thread]
        ancestors = []
        while parent in here and parent is not None:
            ancestors.append(parent)
            if not parent.shared:
                ancestors += here[: here.index(parent)]
                break
            parent = parent.parent
        for each in here:
            if each not in ancestors:
                each.shared = span.shared = True
        self.spans.append(span)
        self.open.append(span)
        return span

    def end(self, span: Span, thread: int, now: int) -> None:
        self.open.remove(span)
        span.ended = now
        if thread == span.thread:
            span.told = "shared" if span.shared else "told"

    def told_alone(self, span: Span) -> bool:
        """Was nothing on its thread meanwhile but its ancestors and descendants?"""
        return all(
            other is span or other in lineage(span) or span in lineage(other)
            for other in self.spans
            if other.thread == span.thread and other.began < span.ended and span.began < other.ended
        )


def lineage(span: Span) -> list[Span]:
    """All ancestors, wherever they are."""
    return [span.parent, *lineage(span.parent)] if span.parent else []


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Event], Model]:
    """Events, and what came of them."""
    model = Model()
    events = on(1, *announced())
    for now_ns in range(1, draw(st.integers(1, 40))):
        if model.open and draw(st.booleans()):
            # often the last one, as code that does not wait for anything does
            at = draw(st.sampled_from([-1, -1, 0]) | st.integers(0, len(model.open) - 1))
            span = model.open[at]
            thread = draw(st.sampled_from([span.thread] * 5 + list(THREADS)))
            model.end(span, thread, now_ns)
            events += on(thread, end(span.number, now_ns))
            continue
        parent = draw(
            st.none() | st.sampled_from([*model.open[-1:] * 3, *model.open[-2:]] or [None])
        )
        if draw(st.integers(0, 5)) == 0 and model.spans:
            parent = draw(st.sampled_from(model.spans))
        thread = draw(st.sampled_from([parent.thread if parent else 1] * 3 + list(THREADS)))
        span = model.start(parent, thread, now_ns)
        above = parent.number if parent else 0
        events += on(thread, start(span.number, now_ns, parent_span_id=above))
    return events, model


@settings(deadline=None)
@given(recordings(), st.data())
def test_as_the_model_says(recording: tuple[list[Event], Model], data: st.DataObject) -> None:
    """In one chunk or in two, with a relay that goes on from a state."""
    events, model = recording
    expected = {span.number: span.told for span in model.spans}
    cut = data.draw(st.integers(0, len(events)), "events in the first chunk")
    scheduler = FakeScheduler()
    with tempfile.TemporaryDirectory() as folder:
        first, second = (
            write_trace(Path(folder) / name, [part], style=STYLE)
            for name, part in (("1", events[:cut]), ("2", events[cut:]))
        )
        with Relay(cpu_times=scheduler.times()) as relay:
            spans = decode(relay.read(first))
            state = relay.save()
        with Relay(cpu_times=scheduler.times()) as relay:
            relay.restore(state)
            spans += decode(relay.read(second)) + decode(relay.finish())
            stats = relay.stats
    said = {int(span.span_id, 16): span.attributes for span in spans}
    assert {
        number: "shared"
        if "k8s_tracing.cpu.shared" in attributes
        else "told"
        if "k8s_tracing.cpu.running_ns" in attributes
        else "nothing"
        for number, attributes in said.items()
    } == expected
    assert all(model.told_alone(span) for span in model.spans if span.told == "told")
    told = list(expected.values())
    assert (stats.cpu_told, stats.cpu_shared) == (told.count("told"), told.count("shared"))
    assert len(scheduler.asked) == told.count("told")
