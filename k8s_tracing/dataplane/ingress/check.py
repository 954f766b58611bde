# SPDX-License-Identifier: Apache-2.0
"""Does a proxy's configuration do what its spans need? What is missing is said in the proxy's own words."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from k8s_tracing.errors import K8sTracingError

#: One of nginx's directives, as crossplane gives it: `directive`, `args`, `line`, perhaps `block`.
Directive: TypeAlias = Mapping[str, Any]

_COMMAND_TIMEOUT_S = 30.0


def check_haproxy(path: Path, snippet: str) -> list[str]:
    """Find what a configuration of HAProxy lacks.

    Args:
        path: The file.
        snippet: The lines that each frontend needs.

    Returns:
        One sentence for each problem; none if all is well.

    Raises:
        K8sTracingError: The file cannot be read.
    """
    text = _read(path)
    problems = list(_complaints(["haproxy", "-c", "-f", str(path)]))
    wanted = [_words(line) for line in snippet.splitlines() if _words(line)]
    frontends = _frontends(text)
    if not frontends:
        problems.append(f"{path} has no frontend and no listen section")
    for name, lines in frontends.items():
        missing = [line for line in wanted if line not in lines]
        if len(missing) == len(wanted):
            problems.append(f"{name} is not traced: it has none of the lines")
            continue
        problems += [f"{name} lacks: {line}" for line in missing]
        found = [line for line in lines if line in wanted]
        if not missing and found != wanted:
            problems.append(f"{name} has the lines in another order, or twice")
    return problems


def check_nginx(path: Path) -> list[str]:
    """Find what a configuration of nginx lacks, with all that it includes.

    Returns:
        One sentence for each problem; none if all is well.

    Raises:
        K8sTracingError: The file cannot be read, or crossplane is not installed.
    """
    try:
        import crossplane
    except ImportError as error:
        raise K8sTracingError(
            "nginx's configuration is read with crossplane: pip install 'k8s-tracing[agent]'"
        ) from error
    _read(path)
    parsed = crossplane.parse(str(path), combine=True)
    problems = [f"{error['file']}: {error['error']}" for error in parsed["errors"]]
    problems += _complaints(["nginx", "-t", "-q", "-c", str(path.resolve())])
    directives = [directive for file in parsed["config"] for directive in file["parsed"]]
    http = [directive for directive in directives if directive["directive"] == "http"]
    if not http:
        return [*problems, f"{path} has no http block"]
    for block in http:
        problems += _check_http(block["block"])
    return problems


def _check_http(block: Sequence[Directive]) -> Iterator[str]:
    if not any(args[0] == "k8st" for args in _arguments(block, "log_format")):
        yield "the http block does not include the log format k8st"
    logged = [args for args in _arguments(block, "access_log") if "k8st" in args]
    if not logged:
        yield "the http block has no access_log with the format k8st"
    for place, directives, headers in _locations(block, "http", ()):
        logs = list(_arguments(directives, "access_log"))
        if logs and not any("k8st" in args or args[0] == "off" for args in logs):
            yield f"{place} has an access_log of its own, which replaces ours: repeat ours there"
        if any(True for _ in _arguments(directives, "proxy_pass")):
            names = {args[0].lower() for args in headers}
            for name in ("traceparent", "tracestate"):
                if name not in names:
                    yield f"{place} proxies without proxy_set_header {name}: include our lines for a location there"


def _locations(
    block: Sequence[Directive], place: str, inherited: Sequence[Sequence[str]]
) -> Iterator[tuple[str, Sequence[Directive], Sequence[Sequence[str]]]]:
    """Every block with the proxy_set_header lines that count there: its own, or if it has none those around it."""
    headers = list(_arguments(block, "proxy_set_header")) or inherited
    yield place, block, headers
    for directive in block:
        if directive["directive"] in ("server", "location", "if", "limit_except"):
            words = " ".join([directive["directive"], *directive["args"]])
            yield from _locations(
                directive["block"], f"{words} (line {directive['line']})", headers
            )


def _arguments(block: Iterable[Directive], name: str) -> Iterator[Sequence[str]]:
    return (directive["args"] for directive in block if directive["directive"] == name)


def _frontends(text: str) -> dict[str, list[str]]:
    """The lines of each section that takes requests, without comments and with single blanks."""
    frontends: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.splitlines():
        words = _words(line)
        if words and not line[0].isspace():
            kind = words.split()[0]
            current = frontends.setdefault(words, []) if kind in ("frontend", "listen") else None
        elif words and current is not None:
            current.append(words)
    return frontends


def _words(line: str) -> str:
    return "" if line.lstrip().startswith("#") else " ".join(line.split())


def _complaints(command: Sequence[str]) -> Iterator[str]:
    """What the proxy's own check says, where it is installed."""
    if shutil.which(command[0]) is None:
        return
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        yield f"`{' '.join(command)}` did not end within {_COMMAND_TIMEOUT_S:.0f} s"
        return
    if done.returncode:
        yield f"`{' '.join(command)}` says: {(done.stderr or done.stdout).strip()}"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise K8sTracingError(f"cannot read {path}: {error.strerror}") from error
