# SPDX-License-Identifier: Apache-2.0
"""Send what the programs on this machine record to an OpenTelemetry backend.

Owns one LTTng recording session, reads the chunks that it finishes and sends their spans by OTLP, to Jaeger, an
OpenTelemetry Collector or any other receiver. Spans wait on disk until each receiver has acknowledged them.
The OTEL_EXPORTER_OTLP_* variables mean what OpenTelemetry says they mean; options go before them. Each option can
also be given as a variable: --log-level as K8S_TRACING_AGENT_LOG_LEVEL, and so on.

Ends in order on SIGTERM and SIGINT: what is recorded by then is still sent, for 10 seconds at most. Exit status 1 says
that something had to stay on disk; the next agent with the same --spool sends it.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k8s_tracing.errors import AgentError
from k8s_tracing.settings import shortest_ns

if TYPE_CHECKING:
    from k8s_tracing.dataplane.names import Names
    from k8s_tracing.dataplane.plane import DataPlane

DEFAULT_SESSION = "k8s-tracing"
DEFAULT_LISTEN = "127.0.0.1:4319"
INGRESS_PORT = 5514  # the number is in no registry
VARIABLE_PREFIX = "K8S_TRACING_AGENT_"

_UNITS = {"": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("", 1000), ("i", 1024))
}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def size_bytes(text: str) -> int:
    """Read a size as Kubernetes writes quantities: a number and k, M, G, T (decimal) or Ki, Mi, Gi, Ti (binary)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]i?)?B?", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"not a size such as 500M or 2Gi: {text}")
    return int(float(match[1]) * _UNITS[(match[2] or "").replace("k", "K")])


def duration_s(text: str) -> float:
    """Read a time: a number and s, m, h or d; seconds without."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"not a time such as 90m or 24h: {text}")
    return float(match[1]) * _SECONDS[match[2]]


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"not a positive number of seconds: {text}")
    return number


def address(text: str) -> tuple[str, int]:
    """Read HOST:PORT; an IPv6 address stands in brackets."""
    host, _, port = text.strip().rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"not HOST:PORT: {text}")
    return host.strip("[]"), int(port)


#: Every option and what argparse has to know of it. `action="append"`: one for each; in the variable, with spaces.
OPTIONS: dict[str, dict[str, Any]] = {
    "--endpoint": {
        "action": "append",
        "metavar": "URL",
        "help": "OTLP receiver (default: http://localhost:4318); once for each. grpc://HOST:4317 and grpcs:// for "
        "OTLP/gRPC. After the URL may stand, with commas: protocol=, headers-file=, certificate=, client-key=, "
        "client-certificate=, compression=, timeout= (ms)",
    },
    "--protocol": {
        "choices": ("http/protobuf", "grpc"),
        "help": "how, where the URL does not say (default: http/protobuf)",
    },
    "--output-file": {
        "action": "append",
        "type": Path,
        "metavar": "PATH",
        "help": "append OTLP JSON lines to PATH; - is standard output. Without --endpoint nothing is sent",
    },
    "--spool": {
        "type": Path,
        "metavar": "DIR",
        "help": "where spans wait until they are acknowledged (default: /var/lib/k8s-tracing/spool; for others "
        "than root: below ~/.local/state; with --private: below that folder)",
    },
    "--spool-max-bytes": {
        "type": size_bytes,
        "metavar": "SIZE",
        "help": "how much may wait, such as 2Gi: past it the oldest goes, counted (default: a tenth of the disk, 10Gi "
        "at most)",
    },
    "--spool-max-age": {
        "type": duration_s,
        "metavar": "TIME",
        "help": "how long it may wait, such as 90m or 2d (default: 24h)",
    },
    "--session": {
        "metavar": "NAME",
        "help": f"LTTng session (default: {DEFAULT_SESSION})",
    },
    "--private": {
        "type": Path,
        "metavar": "DIR",
        "help": "run an LTTng session daemon of our own in DIR instead of using the machine's; "
        "DIR/env.json tells what programs need in their environment to find it",
    },
    "--proc": {
        "type": Path,
        "metavar": "DIR",
        "help": "the node's proc file system, by which processes' pods and containers are found (default: /proc; in a "
        "container without the node's PID namespace: where the node's is mounted)",
    },
    "--app-socket-dir": {
        "type": Path,
        "metavar": "DIR",
        "help": "with --private: put the socket for applications into DIR, the one folder that containers need, which "
        "mount it on /var/run/lttng",
    },
    "--rotation-s": {
        "type": _positive,
        "metavar": "SECONDS",
        "help": "finish a chunk this often (default: 1.0)",
    },
    "--buffers": {
        "choices": ("uid", "pid"),
        "help": "ring buffers for each user id, or for each process, where tenants that have the same user id do not "
        "trust each other (default: uid)",
    },
    "--buffer-memory": {
        "type": size_bytes,
        "metavar": "SIZE",
        "help": "shared memory for the buffers of one user or process, such as 64Mi (default: 4Mi for each CPU, with "
        "--buffers pid 512Ki)",
    },
    "--listen": {
        "metavar": "HOST:PORT",
        "help": f"serve /healthz, /readyz and /metrics here; none: nowhere (default: {DEFAULT_LISTEN}; with --private: "
        "a port that is free)",
    },
    "--ingress-udp": {
        "type": address,
        "metavar": "HOST:PORT",
        "help": "take the log lines of ingress proxies by UDP and make spans of them; `k8s-tracing ingress config` "
        f"writes the proxies' configuration for 127.0.0.1:{INGRESS_PORT}",
    },
    "--ingress-tcp": {
        "type": address,
        "metavar": "HOST:PORT",
        "help": "the same by TCP",
    },
    "--ingress-unix": {
        "type": Path,
        "metavar": "PATH",
        "help": "the same by a datagram socket",
    },
    "--otlp-http": {
        "type": address,
        "metavar": "HOST:PORT",
        "help": "take OTLP over HTTP from ingress proxies and applications that send it, and pass it on",
    },
    "--otlp-grpc": {
        "type": address,
        "metavar": "HOST:PORT",
        "help": "the same over gRPC",
    },
    "--services": {
        "type": Path,
        "metavar": "FILE",
        "help": "watch connections to Services and join them with the spans of both ends; `kubernetes`: the API server "
        "says what the Services are called, else FILE does (docs/how-to/trace-services.md). "
        "Needs CAP_NET_ADMIN in the node's network namespace",
    },
    "--cpu-split": {
        "type": shortest_ns,
        "metavar": "TIME",
        "help": "say in each span of at least that length, such as 1ms, how long its thread ran, waited for a CPU, was "
        "throttled and was blocked, by the kernel's scheduler. Needs root with CAP_SYS_ADMIN, CAP_SYSLOG and "
        "CAP_SYS_PTRACE, and the node's PID namespace",
    },
    "--log-level": {
        "choices": ("debug", "info", "warning", "error"),
        "help": "(default: info)",
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `agent` takes. Defaults come later: a variable goes before them."""
    for flag, details in OPTIONS.items():
        parser.add_argument(flag, **details)


def run(args: argparse.Namespace) -> int:
    """Run the agent until it is told to stop."""
    # Before gRPC is there: its fork handlers would wake its threads in each child, between fork and exec of lttng(1),
    # and they write their complaints to what is read as lttng's answer.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from k8s_tracing.agent.main import Options, run_agent

    given = {flag: _value(flag, args, os.environ) for flag in OPTIONS}
    listen = given["--listen"] or ("127.0.0.1:0" if given["--private"] else DEFAULT_LISTEN)
    options = Options(
        endpoints=tuple(given["--endpoint"] or ()),
        protocol=given["--protocol"],
        output_files=tuple(given["--output-file"] or ()),
        spool=given["--spool"],
        spool_max_bytes=given["--spool-max-bytes"],
        spool_max_age_s=given["--spool-max-age"],
        session=given["--session"] or DEFAULT_SESSION,
        private=given["--private"],
        app_socket_dir=given["--app-socket-dir"],
        proc=given["--proc"] or Path("/proc"),
        rotation_s=given["--rotation-s"] or 1.0,
        buffer_owner=given["--buffers"] or "uid",
        buffer_memory_bytes=given["--buffer-memory"],
        listen=None if listen == "none" else listen,
        log_level=given["--log-level"] or "info",
    )
    with ExitStack() as stack:
        return run_agent(options, data_plane=_data_plane(given, stack))


def _data_plane(given: Mapping[str, Any], stack: ExitStack) -> DataPlane | None:
    """What is watched beside the applications, as far as anything is."""
    ingress = {name: given[f"--ingress-{name}"] for name in ("udp", "tcp", "unix")}
    otlp = {f"otlp_{name}": given[f"--otlp-{name}"] for name in ("http", "grpc")}
    cpu_split_ns = given["--cpu-split"]
    if not any((*ingress.values(), *otlp.values(), given["--services"], cpu_split_ns)):
        return None
    from k8s_tracing.dataplane.names import StaticNames
    from k8s_tracing.dataplane.plane import DataPlane
    from k8s_tracing.dataplane.scheduler import Scheduler

    names: Names | None = None
    if given["--services"] == Path("kubernetes"):
        from k8s_tracing.dataplane.cluster import ClusterNames

        names = stack.enter_context(ClusterNames.in_cluster())
    elif given["--services"]:
        names = StaticNames.from_file(given["--services"])
    scheduler = None
    if cpu_split_ns:
        scheduler = Scheduler(shortest_ns=cpu_split_ns, proc=given["--proc"] or Path("/proc"))
    try:
        return stack.enter_context(DataPlane(**ingress, **otlp, names=names, scheduler=scheduler))
    except OSError as error:
        raise AgentError(
            f"cannot take log lines at {', '.join(str(place) for place in ingress.values() if place)}: {error}"
        ) from error


def variable(flag: str) -> str:
    """The environment variable of an option."""
    return VARIABLE_PREFIX + flag.lstrip("-").replace("-", "_").upper()


def _value(flag: str, args: argparse.Namespace, environ: Mapping[str, str]) -> Any:
    """What the command line says of an option, else its variable.

    Raises:
        AgentError: The variable says something that cannot be.
    """
    given = getattr(args, flag.lstrip("-").replace("-", "_"))
    text = environ.get(variable(flag), "").strip()
    if given is not None or not text:
        return given
    details = OPTIONS[flag]
    choices = details.get("choices")
    if choices and text not in choices:
        raise AgentError(f"{variable(flag)} is {text!r}: it has to be one of {', '.join(choices)}")
    convert = details.get("type", str)
    try:
        if details.get("action") == "append":
            return [convert(word) for word in text.split()]
        return convert(text)
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise AgentError(f"{variable(flag)}: {error}") from None
