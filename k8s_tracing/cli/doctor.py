# SPDX-License-Identifier: Apache-2.0
"""Say whether tracing works here, and what to do if it does not.

Looks at what a process of this user, with this environment, would use: the backend and why it is that one, the native
parts, LTTng's session daemon and session, /dev/shm, the OpenTelemetry fallback and its endpoint, the variables. Run it
where the application runs: in its container, as its user.

Exit status 1 says that nothing would be traced.
"""

from __future__ import annotations

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `doctor` takes."""
    parser.add_argument(
        "--probe", action="store_true", help="also make one span, and say whether it is recorded"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: auto"
    )


def run(args: argparse.Namespace) -> int:
    """Print the findings."""
    from k8s_tracing.cli.read import wants_color
    from k8s_tracing.doctor import Finding, Level, examine, works

    findings = examine(probe=args.probe)
    is_fine = works(findings)
    if args.json:
        rows = [
            {
                "level": finding.level.value,
                "subject": finding.subject,
                "text": finding.text,
                "remedy": finding.remedy,
            }
            for finding in findings
        ]
        print(json.dumps({"works": is_fine, "findings": rows}, indent=2))
        return 0 if is_fine else 1

    paint = {Level.OK: "32", Level.WARNING: "33", Level.PROBLEM: "1;31"}
    color = wants_color(args.color)

    def show(finding: Finding) -> None:
        level = f"{finding.level.value:7}"
        if color:
            level = f"\033[{paint[finding.level]}m{level}\033[0m"
        print(f"{level}  {finding.subject}: {finding.text}")
        if finding.remedy:
            print(f"         -> {finding.remedy}")

    for finding in findings:
        show(finding)
    sys.stdout.flush()
    print(f"k8s-tracing: {'tracing works here' if is_fine else 'nothing is traced here'}")
    return 0 if is_fine else 1
