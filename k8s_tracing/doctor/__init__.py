# SPDX-License-Identifier: Apache-2.0
"""What tracing would do on this machine, for this user, in this environment: findings, each with its remedy.

Nothing is changed and nothing is sent, but for what every traced process does as well: liblttng-ust is loaded, makes
its wait files in /dev/shm, and registers this process with the session daemon for as long as it runs. `probe` makes
one span on top.
"""

from __future__ import annotations

from collections.abc import Sequence

from k8s_tracing.doctor import application, lttng
from k8s_tracing.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine", "works"]


def examine(*, probe: bool = False) -> list[Finding]:
    """Look at everything; the backend comes first.

    Args:
        probe: also make a span, and say whether it is recorded.
    """
    settings, found = application.read_settings()
    machine = lttng.machine(needed=settings.backend == "lttng")
    backend, choice = application.chosen_backend(settings)
    findings = [choice, *found, *application.installation(), *lttng.library(), *machine]
    uses_lttng = backend is not None and backend.name == "lttng"
    if uses_lttng:
        findings += lttng.session()
    findings += application.fallback(in_use=backend is not None and backend.name == "otel")
    findings += [*application.auto_instrumentation(), *application.variables()]
    if backend is not None:
        if probe:
            findings.append(application.probe(backend))
        backend.shutdown()
    return findings


def works(findings: Sequence[Finding]) -> bool:
    """Would a process here be traced at all?"""
    return all(finding.level is not Level.PROBLEM for finding in findings)


def versions() -> dict[str, str]:
    """Return the releases that matter in a bug report, by what they are of."""
    return {**application.versions(), **lttng.versions()}
