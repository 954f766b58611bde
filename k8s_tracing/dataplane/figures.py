# SPDX-License-Identifier: Apache-2.0
"""What the data plane counts, as figures for /metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from k8s_tracing.dataplane.flows import ConntrackStats, JoinStats
from k8s_tracing.dataplane.ingress.receiver import Counts
from k8s_tracing.dataplane.scheduler import SchedulerStats


@dataclass(slots=True)
class Figure:
    """One thing that is counted.

    Attributes:
        labels: Names and values.
        is_total: It only grows; else it is what is now.
    """

    name: str
    text: str
    value: float
    labels: Sequence[tuple[str, str]] = ()
    is_total: bool = True


def of_ingress(counts: Counts, dropped_spans: int) -> Iterator[Figure]:
    """What became of the log lines of ingress proxies."""
    text = "Log lines of ingress proxies, by what became of them."
    yield from _by_outcome(
        "ingress_lines",
        text,
        span=counts.exchanges,
        unsampled=counts.unsampled,
        overflowed=counts.overflowed,
        refused=counts.refused.total(),
    )
    text = "Spans of ingress proxies for which there was no room."
    yield Figure("ingress_dropped_spans", text, dropped_spans)


def of_otlp(accepted_spans: int, refused: Mapping[int, int]) -> Iterator[Figure]:
    """What became of the requests that others sent."""
    text = "Spans that others sent by OTLP and that were acknowledged."
    yield Figure("otlp_spans", text, accepted_spans)
    text = (
        "OTLP requests that were refused, by HTTP's status; after 429 and 503 they may come again."
    )
    for status, count in sorted(refused.items()):
        yield Figure("otlp_refused_requests", text, count, (("status", str(status)),))


def of_services(heard: ConntrackStats, joined: JoinStats) -> Iterator[Figure]:
    """What became of the connections to Services."""
    text = "Connections to Services that were established or failed."
    yield Figure("service_connections", text, heard.flows)
    text = "Connections to Services that are open."
    yield Figure("service_open", text, heard.open, is_total=False)
    text = "Connections to Services whose beginning was not seen."
    yield Figure("service_incomplete", text, heard.incomplete)
    text = "Times that the kernel dropped conntrack events because they were not read in time."
    yield Figure("conntrack_overflows", text, heard.overflows)
    text = "Connections to Services, by whether the request that opened them was found."
    yield from _by_outcome(
        "service_joins",
        text,
        joined=joined.joined,
        failed=joined.failed,
        unverified=joined.unverified,
        evicted=joined.evicted,
    )
    text = "Requests that more than one connection fits; they are joined with none."
    yield Figure("service_ambiguous", text, joined.ambiguous)
    text = "Requests to Services whose endpoint was chosen where conntrack does not see it."
    yield Figure("service_unobserved", text, joined.unobserved)
    text = "Requests on a connection to a Service that conntrack told nothing of, but knows when it is asked."
    yield Figure("service_untold", text, joined.untold)
    text = "Requests to Services whose connection conntrack could not be asked for; nothing is said of them."
    yield Figure("service_unanswered", text, joined.unanswered)
    text = "Questions to conntrack, whether it knows a connection to a Service."
    yield Figure("service_questions", text, joined.questions)
    text = "Requests on a connection to a Service that another one had opened."
    yield Figure("service_reused", text, joined.reused)


def of_scheduler(stats: SchedulerStats) -> Iterator[Figure]:
    """What was heard of the kernel's scheduler."""
    text = "Events of the kernel's scheduler that were read."
    yield Figure("scheduler_events", text, stats.events)
    text = "Events of the kernel's scheduler that were not read in time; spans over that time are not told."
    yield Figure("scheduler_lost_events", text, stats.lost)
    text = "Processes that are followed."
    yield Figure("scheduler_processes", text, stats.processes, is_total=False)
    text = "Their threads."
    yield Figure("scheduler_threads", text, stats.threads, is_total=False)
    text = "Threads that could not be followed: ended too soon, or one too many."
    yield Figure("scheduler_not_followed", text, stats.not_followed)
    text = "Containers that were throttled while their quota's timer was not known."
    yield Figure("scheduler_unknown_timers", text, stats.timers_unknown, is_total=False)
    text = "How far back it is known what threads did."
    yield Figure("scheduler_remembered_seconds", text, stats.remembered_ns / 1e9, is_total=False)


def _by_outcome(name: str, text: str, **values: float) -> Iterator[Figure]:
    for outcome, value in values.items():
        yield Figure(name, text, value, (("outcome", outcome),))
