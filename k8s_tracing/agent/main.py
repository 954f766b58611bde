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
from functools import partial
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from k8s_tracing.agent.buffers import Owner, plan_buffers
from k8s_tracing.agent.containers import Containers
from k8s_tracing.agent.daemon import PrivateDaemon
from k8s_tracing.agent.destinations import open_destinations
from k8s_tracing.agent.export import Delivery
from k8s_tracing.agent.health import Check, HealthServer
from k8s_tracing.agent.host_daemon import HostDaemon
from k8s_tracing.agent.identity import Identities
from k8s_tracing.agent.lifetime import Lifetimes
from k8s_tracing.agent.metrics import Metrics
from k8s_tracing.agent.pipeline import Pipeline
from k8s_tracing.agent.processes import Proc
from k8s_tracing.agent.progress import ERASE_LINE, ProgressLine
from k8s_tracing.agent.protocols import DataPlane
from k8s_tracing.agent.relay import CpuTimes, Process, Relay
from k8s_tracing.agent.service import DRAIN_S
from k8s_tracing.agent.spool import Spool
from k8s_tracing.agent.stopping import Stop
from k8s_tracing.agent.supervisor import SessionStatus, Supervisor
from k8s_tracing.errors import AgentError

log = logging.getLogger(__name__)

ENV_FILE = "env.json"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Options:
    """What the command line says; see `k8s-tracing agent --help`.

    Attributes:
        spool_max_bytes: None: what follows from the size of the disk; likewise for the age.
        listen: HOST:PORT of health and metrics; None: they are not served.
    """

    session: str
    rotation_s: float = 1.0
    endpoints: tuple[str, ...] = ()
    protocol: str | None = None
    output_files: tuple[Path, ...] = ()
    spool: Path | None = None
    spool_max_bytes: int | None = None
    spool_max_age_s: float | None = None
    private: Path | None = None
    proc: Path = Path("/proc")
    buffer_owner: Owner = "uid"
    buffer_memory_bytes: int | None = None
    app_socket_dir: Path | None = None
    listen: str | None = None
    log_level: str = "info"


def run_agent(
    options: Options,
    environ: Mapping[str, str] = os.environ,
    *,
    data_plane: DataPlane | None = None,
) -> int:
    """Run until SIGTERM or SIGINT.

    Args:
        options: What to do.
        environ: OpenTelemetry's variables.
        data_plane: What is watched beside the applications.

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
        metrics = Metrics()
        deliveries = [
            Delivery(
                exporter,
                stop,
                timeout_s=timeout_s,
                on_attempt=metrics.observer(exporter.name),
            )
            for exporter, timeout_s in open_destinations(
                options.endpoints, options.protocol, options.output_files, environ, stack
            )
        ]
        proc = Proc(options.proc)
        identities, lifetimes = Identities(proc), Lifetimes(proc)
        stack.callback(lifetimes.close)
        containers = Containers(proc, identities)
        metrics.registry.register(containers)

        def watch(process: Process) -> None:
            containers.watch(process)
            found = proc.find(process) if data_plane is not None else None
            if data_plane is not None and found is not None:
                data_plane.follow(found.pid)

        def identify(process: Process) -> bytes | None:
            lifetimes.watch(process)
            watch(process)
            return identities.resource(process)

        for delivery in deliveries:
            _refuse_circle(delivery.exporter.name, data_plane)
        scheduler = None if data_plane is None else data_plane.cpu_times
        relay = Relay(
            identify=identify,
            cpu_times=None if scheduler is None else CpuTimes(*scheduler, owner=data_plane),
        )
        stack.callback(relay.close)
        spool = stack.enter_context(Spool(spool_folder))
        pipeline = stack.enter_context(
            Pipeline(
                spool,
                relay,
                deliveries,
                stop,
                progress,
                data_plane=data_plane,
                max_bytes=options.spool_max_bytes,
                max_age_s=options.spool_max_age_s,
                lifetimes=lifetimes,
            )
        )
        for process in relay.processes():  # that an agent before us knew
            watch(process)
        # From here on a signal ends us in order; a daemon that is starting must not be left behind.
        stack.enter_context(_stopped_by_signals(stop))
        private = options.private
        daemon: PrivateDaemon | HostDaemon
        if private is None:
            daemon = HostDaemon(spool.root)
        else:
            daemon = PrivateDaemon(private, app_socket_dir=options.app_socket_dir)
        supervisor = stack.enter_context(
            Supervisor(
                options.session,
                spool,
                daemon,
                rotation_s=options.rotation_s,
                buffers=plan_buffers(options.buffer_owner, options.buffer_memory_bytes),
            )
        )
        pipeline.on_cut_off(supervisor.renew)
        health = None
        if options.listen is not None:
            sources = pipeline.sources(
                supervisor.status, lambda: identities.replaced, lambda: proc.ambiguous
            )
            metrics.attach(sources)
            checks: dict[str, Check] = {
                "/healthz": pipeline.heartbeat.check,
                "/readyz": supervisor.status.check,
            }
            health = stack.enter_context(HealthServer(options.listen, checks, metrics.render))
        if isinstance(daemon, PrivateDaemon):
            write = partial(_write_env_file, daemon, supervisor.status, spool, health, data_plane)
            stack.callback((daemon.directory / ENV_FILE).unlink, missing_ok=True)
            supervisor.on_recording(write)
        if health is not None:
            log.info("health and metrics at http://%s", health.address)
        pipeline.start_log()
        log.info("sending to %s", ", ".join(delivery.exporter.name for delivery in deliveries))
        pipeline.run()
        log.info("stopping: the last spans are fetched and sent")
        supervisor.finish()
        stop.allow(DRAIN_S)
        # With its own daemon the agent is alone with its applications: nobody goes on with their open spans.
        return 0 if pipeline.drain(finish=options.private is not None) else 1


def _refuse_circle(destination: str, data_plane: DataPlane | None) -> None:
    """What the agent sends must not come back to it.

    Raises:
        AgentError: It would.
    """
    to = urlsplit(destination if "//" in destination else f"//{destination}")
    for address in data_plane.otlp_addresses if data_plane is not None else ():
        at = urlsplit(address)
        is_here = to.hostname == at.hostname or {to.hostname, at.hostname} <= _LOOPBACK
        if to.port == at.port and is_here:
            raise AgentError(
                f"the agent takes OTLP at {address} and would send it there, to itself: name another receiver with "
                "--endpoint, or another port with --otlp-http and --otlp-grpc"
            )


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


def _write_env_file(
    daemon: PrivateDaemon,
    session: SessionStatus,
    spool: Spool,
    health: HealthServer | None,
    data_plane: DataPlane | None,
) -> None:
    """Tell whoever starts applications that all is ready, and what they need."""
    path = daemon.directory / ENV_FILE
    content = {
        "environment": daemon.env,
        "pid": os.getpid(),
        "daemon_pid": daemon.pid,
        "session": session.session,
        "spool": str(spool.root),
        "health": health and f"http://{health.address}",
        "otlp": [] if data_plane is None else list(data_plane.otlp_addresses),
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=2) + "\n")
    new.replace(path)


def _set_up_log(level: str, *, above_progress: bool) -> None:
    start = ERASE_LINE if above_progress else ""
    logging.basicConfig(
        level=level.upper(),
        format=f"{start}%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )
