# SPDX-License-Identifier: Apache-2.0
"""For tests of an application's own tracing: its finished spans, with fixed ids and times if wanted.

    from k8s_tracing.testing import capture

    def test_dispatch():
        with capture() as captured:
            dispatch("123")
        assert captured.find("dispatch").attributes["customer.id"] == "123"

pytest users get the same as the fixture `k8s_tracing_spans`, see `k8s_tracing.testing_plugin`. Nothing leaves the
process, and no daemon is needed; but the native span is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

from opentelemetry import trace

from k8s_tracing import api, backends
from k8s_tracing.provider import TracerProvider
from k8s_tracing.record import SpanRecord
from k8s_tracing.settings import from_environment

if TYPE_CHECKING:
    from k8s_tracing.backends.memory import MemoryBackend

__all__ = ["Captured", "Clock", "capture", "using"]

#: 2023-11-14 22:13:20 UTC
DEFAULT_START_NS = 1_700_000_000_000_000_000

_provider: TracerProvider | None = None


class Clock:
    """A clock that only moves when it is read, or told to.

    Every start, end and event of a span reads it once, unless it is given a time.

    Args:
        start_ns: the first reading, in ns since the Unix epoch; not 0.
        step_ns: what each reading adds, in ns.
    """

    def __init__(self, start_ns: int = DEFAULT_START_NS, *, step_ns: int = 1_000_000_000) -> None:
        self.start_ns = start_ns
        self.step_ns = step_ns

    def advance(self, ns: int) -> None:
        """Let that time pass, in ns. Only within the `capture` block that has the clock."""
        from k8s_tracing import _core

        next_ns = _core.fix_clock(0, 0)
        _core.fix_clock(next_ns + ns, self.step_ns)


class Captured:
    """The spans of a `capture` block.

    Attributes:
        spans: those that have ended, in the order in which they did.
        clock: the fixed clock; None when times are real.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.spans: list[SpanRecord] = []
        self.clock = clock

    @property
    def names(self) -> list[str]:
        """The names of the spans, in their order."""
        return [span.name for span in self.spans]

    def find(self, name: str) -> SpanRecord:
        """Return the one span of that name.

        Raises:
            AssertionError: there is none, or more than one; it says which there are.
        """
        found = self.find_all(name)
        if len(found) != 1:
            there = ", ".join(map(repr, self.names)) or "none"
            raise AssertionError(f"{len(found)} spans are called {name!r}; the spans are: {there}")
        return found[0]

    def find_all(self, name: str) -> list[SpanRecord]:
        """Return all spans of that name."""
        return [span for span in self.spans if span.name == name]

    def children(self, parent: SpanRecord) -> list[SpanRecord]:
        """Return the spans right below `parent`."""
        ids = (parent.trace_id, parent.span_id)
        return [span for span in self.spans if (span.trace_id, span.parent_span_id) == ids]

    def clear(self) -> None:
        """Forget the spans so far."""
        self.spans.clear()


@contextmanager
def capture(*, fixed: bool = False, clock: Clock | None = None) -> Iterator[Captured]:
    """Catch every span that this process makes within the block, by k8s_tracing's API and OpenTelemetry's.

    What `k8s_tracing.init` made, or makes within the block, is put aside. One thing is not: an OpenTelemetry tracer
    that was handed out before by a provider which had been set up by then goes on using that.

    Args:
        fixed: ids count up from 1 (a new trace takes two of them, the halves of its id), and the clock is a `Clock`:
            what is recorded can be compared with a file.
        clock: the clock to use; the real one, unless `fixed`, when None.

    Raises:
        BackendUnavailable: the native span was not built.
    """
    captured = Captured(clock or (Clock() if fixed else None))
    provider = _the_provider()
    with ExitStack() as stack:
        stack.enter_context(_records_into(provider, captured.spans))
        stack.enter_context(using(provider))
        if fixed:
            stack.enter_context(_fixed_ids())
        if captured.clock is not None:
            stack.enter_context(_fixed_clock(captured.clock))
        yield captured


@contextmanager
def using(provider: TracerProvider) -> Iterator[None]:
    """Let k8s_tracing's API and OpenTelemetry's record through `provider` within the block."""
    before = getattr(trace, "_TRACER_PROVIDER", None)
    # OpenTelemetry lets it be set but once, for good; a test ends before its process does.
    trace._TRACER_PROVIDER = provider
    try:
        with api._instead(provider):
            yield
    finally:
        if getattr(trace, "_TRACER_PROVIDER", None) is provider:
            trace._TRACER_PROVIDER = before


def _the_provider() -> TracerProvider:
    """The one provider of all captures: OpenTelemetry's tracers keep the first that they meet."""
    global _provider
    if _provider is None:
        settings = from_environment()
        backend = backends.choose("memory", {"service.name": "test"}, settings.limits)
        _provider = TracerProvider(backend)
        cast("MemoryBackend", backend).records = deque(maxlen=0)
    return _provider


@contextmanager
def _records_into(provider: TracerProvider, spans: list[SpanRecord]) -> Iterator[None]:
    backend = cast("MemoryBackend", provider.backend)
    before = backend.records
    backend.records = spans
    try:
        yield
    finally:
        backend.records = before


@contextmanager
def _fixed_ids() -> Iterator[None]:
    from k8s_tracing import _core

    _core.fix_ids(1)
    try:
        yield
    finally:
        _core.fix_ids(0)


@contextmanager
def _fixed_clock(clock: Clock) -> Iterator[None]:
    from k8s_tracing import _core

    _core.fix_clock(clock.start_ns, clock.step_ns)
    try:
        yield
    finally:
        _core.fix_clock(0, 0)
