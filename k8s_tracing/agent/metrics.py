# SPDX-License-Identifier: Apache-2.0
"""The agent's counters as Prometheus metrics: read from where they are counted whenever somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from k8s_tracing.agent.identity import service_name
from k8s_tracing.agent.outbox import Outbox
from k8s_tracing.agent.protocols import DataPlane
from k8s_tracing.agent.relay import Loss, RelayStats
from k8s_tracing.agent.room import Room
from k8s_tracing.agent.sender import Sender
from k8s_tracing.agent.service import Counts
from k8s_tracing.agent.spool import Spool
from k8s_tracing.agent.supervisor import SessionStatus

PREFIX = "k8s_tracing_agent"

# From a receiver on this machine to one that is at its limit.
_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# What the relay counts, by the name of the field.
_RELAY_COUNTERS = {
    "events": "Events of spans that were read.",
    "unfinished": "Spans that were sent without their end.",
    "evicted": "Spans that were sent without their end to keep within memory.",
    "completed": "Of those, spans that were sent again because their end came after all.",
    "marked": "Spans that were sent with the mark that events of their process's buffers were lost meanwhile.",
    "contradicting_processes": "Announcements under the id of a process that another one announced first, ignored.",
    "ends_without_start": "Ends of spans whose start was never seen.",
    "details_without_span": "Span events and links whose span was never seen.",
    "duplicates": "Second starts or ends of a span, ignored.",
    "unknown_resources": "Spans that were sent without the resource of their process.",
    "unknown_scopes": "Spans that were sent without their instrumentation scope.",
    "invalid_fields": "Byte sequences in events that are not OTLP, dropped.",
    "invalid_events": "Events without ids or with a wrong layout, dropped.",
    "discarded_events": "Events that LTTng discarded because its buffers were full.",
    "lost_packets": "Sub-buffers of events that LTTng lost.",
    "cpu_told": "Spans that say what their thread did meanwhile, by the kernel's scheduler.",
    "cpu_shared": "Spans that say instead that they shared their thread with others.",
    "cpu_unknown": "Spans that had their thread for themselves, but of which the scheduler could not say what it did.",
}
_RELAY_GAUGES = {
    "open_spans": "Spans that have started and not ended.",
    "reported_spans": "Spans that were sent without their end and are kept in case that it comes.",
    "waiting_spans": "Spans that have ended and wait for the rest of what is known about them.",
}


@dataclass(frozen=True)
class Sources:
    """Where the figures are.

    Attributes:
        losses: What LTTng lost, by whose buffers.
        replaced_identities: How often the node knew better than a process which container it is in.
        ambiguous_identities: How often it could not tell a process from others.
        session: What the supervisor knows.
    """

    counts: Callable[[], Counts]
    relay: Callable[[], RelayStats]
    spool: Spool
    outbox: Outbox
    room: Room
    senders: Sequence[Sender]
    losses: Callable[[], Sequence[Loss]]
    replaced_identities: Callable[[], int]
    ambiguous_identities: Callable[[], int]
    session: SessionStatus
    data_plane: DataPlane | None = None


class Metrics(Collector):
    """All metrics of one agent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._sources: Sources | None = None
        self._latency = Histogram(
            f"{PREFIX}_export_duration_seconds",
            "Duration of one attempt to send a request, by whether the endpoint answered it.",
            ("endpoint", "answered"),
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def observer(self, endpoint: str) -> Callable[[float, bool], None]:
        """What a Delivery tells of its attempts."""
        answered = self._latency.labels(endpoint, "true")
        failed = self._latency.labels(endpoint, "false")

        def observe(seconds: float, done: bool) -> None:
            (answered if done else failed).observe(seconds)

        return observe

    def attach(self, sources: Sources) -> None:
        """From now on there is something to report."""
        self._sources = sources

    def render(self, accept: str) -> tuple[bytes, str]:
        """The answer to a scrape, and its content type."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not collect to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every figure as it is now."""
        if self._sources is None:
            return
        yield from _pipeline(self._sources)
        yield from _endpoints(self._sources)
        yield from _spool(self._sources)
        if self._sources.data_plane is not None:
            yield from _data_plane(self._sources.data_plane)


def _pipeline(sources: Sources) -> Iterator[Metric]:
    counts, stats = sources.counts(), sources.relay()
    yield _counter("spans", "Spans that were put together, unfinished ones too.", counts.spans)
    chunks = CounterMetricFamily(
        f"{PREFIX}_chunks", "Chunks of the recording, by what became of them.", labels=["outcome"]
    )
    chunks.add_metric(["relayed"], counts.chunks)
    chunks.add_metric(["empty"], counts.empty_chunks)
    chunks.add_metric(["unreadable"], counts.bad_chunks)
    chunks.add_metric(["dropped"], sources.room.dropped.chunks)
    yield chunks
    yield _counter("relay_seconds", "Time spent making requests of chunks.", counts.relay_s)
    for name, text in _RELAY_COUNTERS.items():
        yield _counter(name, text, getattr(stats, name))
    for name, text in _RELAY_GAUGES.items():
        yield _gauge(name, text, getattr(stats, name))
    yield _counter(
        "replaced_identities",
        "Processes that said they were in another pod or container than the node knows, corrected.",
        sources.replaced_identities(),
    )
    yield _counter(
        "ambiguous_identities",
        "Times that a process could not be told from others, so that its own word on its container was taken.",
        sources.ambiguous_identities(),
    )
    yield from _losses(sources.losses())
    session = sources.session
    yield _gauge("session_daemon_up", "Whether there is a session that records.", session.recording)
    yield _counter(
        "session_daemon_restarts",
        "How often the session daemon was gone and another took its place.",
        session.daemon_restarts,
    )
    yield _counter("session_stalls", "Sessions replaced as their buffers stalled.", session.stalls)
    yield _counter(
        "session_resumed",
        "Sessions that somebody else stopped or destroyed, or a full disk cut off.",
        session.resumed,
    )


def _losses(losses: Sequence[Loss]) -> Iterator[Metric]:
    lost = CounterMetricFamily(
        f"{PREFIX}_lost_events",
        "Events that LTTng lost, by the user's or process's buffers, where any were.",
        labels=["buffers"],
    )
    services = GaugeMetricFamily(
        f"{PREFIX}_lossy_buffers_processes",
        "Processes of a service that record to buffers that lost events.",
        labels=["buffers", "service"],
    )
    for loss in losses:
        lost.add_metric([loss.buffers], loss.lost_events)
        for service, count in Counter(map(service_name, loss.processes)).items():
            services.add_metric([loss.buffers, service], count)
    yield from (lost, services)


def _endpoints(sources: Sources) -> Iterator[Metric]:
    labels = ["endpoint"]
    exported = CounterMetricFamily(
        f"{PREFIX}_exported_spans",
        "Spans by what became of them at an endpoint: accepted; refused by it for good; dropped because the spool "
        "had no room; damaged on disk.",
        labels=[*labels, "outcome"],
    )
    spans = GaugeMetricFamily(
        f"{PREFIX}_backlog_spans", "Spans that an endpoint has not taken yet.", labels=labels
    )
    size = GaugeMetricFamily(f"{PREFIX}_backlog_bytes", "Their size on disk.", labels=labels)
    age = GaugeMetricFamily(
        f"{PREFIX}_backlog_age_seconds", "How long the oldest of them has waited.", labels=labels
    )
    down = GaugeMetricFamily(
        f"{PREFIX}_endpoint_down_seconds",
        "How long an endpoint has not taken spans.",
        labels=labels,
    )
    for sender in sources.senders:
        name = sender.delivery.exporter.name
        exported.add_metric([name, "accepted"], sender.delivery.total.accepted)
        exported.add_metric([name, "refused"], sender.delivery.total.refused)
        exported.add_metric([name, "dropped"], sender.cursor.dropped)
        exported.add_metric([name, "damaged"], sender.cursor.damaged)
        behind = sources.outbox.behind(sender.cursor)
        spans.add_metric([name], behind.spans)
        size.add_metric([name], behind.size_bytes)
        age.add_metric([name], behind.age_s)
        down.add_metric([name], sender.delivery.down_s)
    yield from (exported, spans, size, age, down)


def _spool(sources: Sources) -> Iterator[Metric]:
    room = sources.room
    chunks = sources.spool.backlog()
    yield _gauge("unread_chunks", "Chunks that are recorded and not read yet.", chunks.chunks)
    yield _gauge(
        "spool_bytes",
        "What the spool takes on disk.",
        chunks.size_bytes + sources.outbox.size_bytes,
    )
    yield _gauge("spool_limit_bytes", "What it may take.", room.limits.max_bytes)
    yield _counter(
        "spool_dropped_bytes", "What was removed from it for want of room.", room.dropped.size_bytes
    )
    yield _counter(
        "spool_dropped_batches", "Relayed chunks removed for want of room.", room.dropped.batches
    )


def _data_plane(data_plane: DataPlane) -> Iterator[Metric]:
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for figure in data_plane.figures():
        names = [name for name, _ in figure.labels]
        family = CounterMetricFamily if figure.is_total else GaugeMetricFamily
        if figure.name not in families:
            families[figure.name] = family(f"{PREFIX}_{figure.name}", figure.text, labels=names)
        families[figure.name].add_metric([value for _, value in figure.labels], figure.value)
    yield from families.values()


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)
