# SPDX-License-Identifier: Apache-2.0
"""Put the node agent together from its options, run it, and take it apart again."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from k8s_tracing.agent import endpoint as endpoints
from k8s_tracing.agent.daemon import HostDaemon, PrivateDaemon
from k8s_tracing.agent.export import Delivery, Exporter, FileExporter, open_exporter
from k8s_tracing.agent.progress import ERASE_LINE, ProgressLine
from k8s_tracing.agent.relay import Relay
from k8s_tracing.agent.service import DRAIN_S, Agent, Counts
from k8s_tracing.agent.session import Session, find_session
from k8s_tracing.agent.spool import Spool
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.errors import SessionError

log = logging.getLogger(__name__)

ENV_FILE = "env.json"


@dataclass(frozen=True)
class Options:
    """What the command line says; see `k8s-tracing agent --help`."""

    session: str
    rotation_s: float = 1.0
    endpoint: str | None = None
    protocol: str | None = None
    output_file: Path | None = None
    spool: Path | None = None
    private: Path | None = None
    log_level: str = "info"


def run_agent(options: Options, environ: Mapping[str, str] = os.environ) -> int:
    """Run until SIGTERM or SIGINT.

    Returns:
        0; 1 if spans had to be left on disk.

    Raises:
        AgentError: It cannot start.
    """
    progress = ProgressLine(sys.stderr)
    _set_up_log(options.log_level, above_progress=progress.is_on)
    spool_folder = _spool_folder(options, environ)
    with ExitStack() as stack:
        if options.private is not None:
            stack.enter_context(_folder(options.private))
        stop = Stop()
        stack.callback(stop.close)
        deliveries = [
            Delivery(exporter, stop, timeout_s=timeout_s)
            for exporter, timeout_s in _exporters(options, environ, stack)
        ]
        relay = Relay()
        stack.callback(relay.close)
        spool = stack.enter_context(Spool(spool_folder))
        # From here on a signal ends us in order; a daemon that is starting must not be left behind.
        stack.enter_context(_stopped_by_signals(stop))
        daemon: PrivateDaemon | HostDaemon
        if options.private is not None:
            daemon = stack.enter_context(PrivateDaemon(options.private))
        else:
            daemon = stack.enter_context(HostDaemon(spool.root))
        session = _record(options, spool, daemon)
        stack.callback(session.finish)
        if isinstance(daemon, PrivateDaemon):
            stack.enter_context(_env_file(daemon, session, spool))
        log.info("%s, session %s, recording to %s", daemon, session, session.output)
        log.info("sending to %s", ", ".join(delivery.exporter.name for delivery in deliveries))

        def show(counts: Counts) -> None:
            if progress.due():
                waiting = spool.backlog()
                progress.show(
                    spans=counts.spans,
                    chunks=waiting.chunks,
                    backlog_bytes=waiting.size_bytes,
                    lost=relay.stats.discarded_events,
                )

        agent = Agent(spool, relay, deliveries, stop, on_progress=show)
        agent.resume()
        agent.run()
        log.info("stopping: the last spans are fetched and sent")
        if session.finish():
            spool.recover(live=None)
        stop.allow(DRAIN_S)
        done = agent.drain()
        progress.clear()
        _summarize(agent, relay, deliveries)
        if not done:
            left = spool.backlog()
            log.error(
                "%d chunks (%.1f MB) could not be sent in time and stay in %s: the next agent sends them",
                left.chunks,
                left.size_bytes / 1e6,
                spool.root,
            )
        return 0 if done else 1


def _record(options: Options, spool: Spool, daemon: PrivateDaemon | HostDaemon) -> Session:
    """Start the session, or go on with the one that an agent that was killed left recording."""
    found = find_session(daemon.control, options.session)
    if found is not None and not spool.holds(found.output):
        raise SessionError(
            f"the session {found.name!r} exists and records to {found.output}, which is not in the spool "
            f"{spool.root}: choose another name with --session, or `lttng destroy {found.name}` if nobody needs it"
        )
    output = found.output if found is not None else spool.new_session()
    session = Session(options.session, output, daemon.control)
    left = spool.recover(output)
    if left:
        log.info("an earlier run left %d chunks: they are sent first", left)
    if found is not None:
        log.info("session %s records already: taken over from an agent that was killed", session)
        session.adopt(rotation_s=options.rotation_s)
    else:
        daemon.grant(output)
        session.start(rotation_s=options.rotation_s)
    return session


def _exporters(
    options: Options, environ: Mapping[str, str], stack: ExitStack
) -> Iterator[tuple[Exporter, float]]:
    """Every destination with the time that one attempt may take.

    A file alone is enough; where nothing at all is said, OpenTelemetry's default is an OTLP receiver on this machine.
    """
    if options.output_file is not None:
        exporter: Exporter = FileExporter(options.output_file)
        stack.callback(exporter.close)
        yield exporter, endpoints.DEFAULT_TIMEOUT_S
    if options.output_file is None or options.endpoint or endpoints.is_configured(environ):
        target = endpoints.from_environment(
            environ, url=options.endpoint, protocol=options.protocol
        )
        exporter = open_exporter(target)
        stack.callback(exporter.close)
        yield exporter, target.timeout_s


def _spool_folder(options: Options, environ: Mapping[str, str]) -> Path:
    if options.spool is not None:
        return options.spool
    if options.private is not None:
        return options.private / "spool"
    if os.geteuid() == 0:
        return Path("/var/lib/k8s-tracing/spool")
    state = environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "k8s-tracing/spool"


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder, and remove it if nothing was left in it."""
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):
                path.rmdir()


@contextmanager
def _stopped_by_signals(stop: Stop) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        stop.request()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _env_file(daemon: PrivateDaemon, session: Session, spool: Spool) -> Iterator[None]:
    """Tell whoever starts applications that all is ready, and what they need."""
    path = daemon.directory / ENV_FILE
    content = {
        "environment": daemon.env,
        "pid": os.getpid(),
        "daemon_pid": daemon.pid,
        "session": session.name,
        "spool": str(spool.root),
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=2) + "\n")
    new.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _summarize(agent: Agent, relay: Relay, deliveries: list[Delivery]) -> None:
    stats = relay.stats
    log.info(
        "%d spans from %d chunks; %d without an end, %d ends without a start; "
        "LTTng lost %d events; %d chunks could not be read",
        agent.counts.spans,
        agent.counts.chunks,
        stats.unfinished,
        stats.ends_without_start,
        stats.discarded_events,
        agent.counts.bad_chunks,
    )
    for delivery in deliveries:
        log.info(
            "%s: %d spans accepted, %d refused",
            delivery.exporter.name,
            delivery.total.accepted,
            delivery.total.refused,
        )


def _set_up_log(level: str, *, above_progress: bool) -> None:
    start = ERASE_LINE if above_progress else ""
    logging.basicConfig(
        level=level.upper(),
        format=f"{start}%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )
