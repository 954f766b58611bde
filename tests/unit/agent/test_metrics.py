"""What /metrics says: real objects, one chunk through them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from k8s_tracing.agent.containers import Containers
from k8s_tracing.agent.export import Delivery
from k8s_tracing.agent.identity import Identities
from k8s_tracing.agent.metrics import PREFIX, Metrics
from k8s_tracing.agent.otlp_answer import RefusedError, RetryableError
from k8s_tracing.agent.pipeline import Pipeline
from k8s_tracing.agent.processes import Proc
from k8s_tracing.agent.progress import ProgressLine
from k8s_tracing.agent.relay import Relay
from k8s_tracing.agent.spool import Spool
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.agent.supervisor import SessionStatus
from k8s_tracing.dataplane import figures
from k8s_tracing.dataplane.flows import ConntrackStats, JoinStats
from k8s_tracing.dataplane.ingress.receiver import Counts
from k8s_tracing.dataplane.scheduler import SchedulerStats
from tests.support.ctf import write_trace
from tests.support.spans import announced, end, start

PAGE = Path(__file__).parents[3] / "docs/reference/agent.md"


class Receiver:
    """Answers in turn what it is told to."""

    name = 'r "1"'

    def __init__(self) -> None:
        self.answers: list[Any] = [RetryableError("down"), RefusedError("no"), 1]

    def send(self, request: bytes, timeout_s: float) -> int:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    def close(self) -> None:
        pass


class Silent:
    def isatty(self) -> bool:
        return False


class Watching:
    """A data plane that has seen nothing."""

    otlp_addresses = ()

    def fileno(self) -> int:
        raise NotImplementedError

    def published(self) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def collect(self) -> list[Any]:
        return []

    def pass_on(self, body: bytes, *, is_local: bool) -> tuple[bytes, int]:
        return body, 0

    def figures(self) -> Iterator[figures.Figure]:
        yield from figures.of_ingress(Counts(), 0)
        yield from figures.of_otlp(0, {400: 1})
        yield from figures.of_scheduler(SchedulerStats(*[0] * 9))
        yield from figures.of_services(ConntrackStats(*[0] * 8), JoinStats(*[0] * 13))


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    """After three chunks: spans that were refused, rejected in part and taken; an empty chunk, and a bad one."""
    metrics = Metrics()
    proc = Proc(tmp_path / "proc")
    metrics.registry.register(Containers(proc, Identities(proc)))
    stop = Stop()
    delivery = Delivery(
        Receiver(), stop, jitter=lambda: 0.0, on_attempt=metrics.observer(Receiver.name)
    )
    progress = ProgressLine(Silent())  # type: ignore[arg-type]
    with (
        Spool(tmp_path) as spool,
        Relay() as relay,
        Pipeline(
            spool, relay, [delivery], stop, progress, data_plane=Watching(), max_bytes=12345678
        ) as pipeline,
    ):
        archives = spool.new_session() / "archives"
        write_trace(archives / "x-0/ust", [[*announced(), start(1), end(1), end(9)]])
        write_trace(archives / "x-1/ust", [[start(2, 10), end(2, 20), start(3, 30), end(3, 40)]])
        write_trace(archives / "x-2/ust", [[start(4, 50)]])
        (archives / "x-3").mkdir()
        (archives / "x-4").mkdir()
        (archives / "x-4/metadata").write_text("none")
        status = SessionStatus(recording=True, stalls=2)
        metrics.attach(pipeline.sources(status, lambda: 3, lambda: 2))
        stop.request()
        pipeline.run()
        stop.allow(30.0)
        pipeline.drain(finish=False)
        pipeline.turned()
        yield metrics
    stop.close()


def samples(metrics: Metrics) -> dict[str, float]:
    text = metrics.render("")[0].decode()
    return {
        sample.name.removeprefix(f"{PREFIX}_")
        + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures(metrics: Metrics) -> None:
    found = samples(metrics)
    assert found["spans_total"] == 3
    assert (
        found['exported_spans_total r "1" refused'] + found['exported_spans_total r "1" accepted']
        == 3
    )
    assert found['exported_spans_total r "1" dropped'] == 0
    assert found['export_duration_seconds_count false r "1"'] == 1
    assert found['export_duration_seconds_count true r "1"'] >= 1
    assert found["chunks_total relayed"] == 3
    assert found["chunks_total empty"] == 1
    assert found["chunks_total unreadable"] == 1
    assert found["open_spans"] == 1
    assert found["spool_limit_bytes"] == 12345678
    assert found["session_daemon_up"] == 1
    assert found["session_stalls_total"] == 2
    assert found['backlog_spans r "1"'] == 0
    assert found["relay_seconds_total"] > 0


def test_the_page_has_every_metric_and_its_type(metrics: Metrics) -> None:
    text = metrics.render("")[0].decode()
    families = [
        family
        for family in text_string_to_metric_families(text)
        if family.name.startswith(PREFIX) and not family.name.endswith("_created")
    ]
    assert all(family.documentation.endswith(".") for family in families)
    served = {
        (
            family.name.removeprefix(f"{PREFIX}_") + ("_total" if family.type == "counter" else ""),
            family.type,
        )
        for family in families
    }
    documented = {
        (name, kind)
        for names, kind in re.findall(
            r"^\| (`[^|]+) \| (counter|gauge|histogram) \|", PAGE.read_text(), re.MULTILINE
        )
        for name in re.findall(r"`([a-z_]+)", names)
    }
    assert documented == served


def test_openmetrics_where_it_is_asked_for(metrics: Metrics) -> None:
    body, kind = metrics.render("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
