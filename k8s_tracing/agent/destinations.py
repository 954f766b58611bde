# SPDX-License-Identifier: Apache-2.0
"""Where an agent sends to, put together from its options and variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from k8s_tracing.agent import endpoint as endpoints
from k8s_tracing.agent.export import Exporter, FileExporter, open_exporter


def open_destinations(
    urls: Sequence[str],
    protocol: str | None,
    files: Sequence[Path],
    environ: Mapping[str, str],
    stack: ExitStack,
) -> Iterator[tuple[Exporter, float]]:
    """Every destination with the time that one attempt may take, in s.

    A file alone is enough; where nothing at all is said, OpenTelemetry's default is an OTLP receiver on this machine.

    Args:
        urls: As `--endpoint` names receivers.
        protocol: For those that do not say.
        files: For OTLP JSON lines.
        environ: Where OTEL_EXPORTER_OTLP_* are.
        stack: Closes them.

    Raises:
        ExportError: One of them cannot be.
    """
    for path in files:
        file = FileExporter(path)
        stack.callback(file.close)
        yield file, endpoints.DEFAULT_TIMEOUT_S
    if urls:
        targets = endpoints.from_texts(urls, environ, protocol=protocol)
    elif files and not endpoints.is_configured(environ):
        targets = []
    else:
        targets = [endpoints.from_environment(environ, protocol=protocol)]
    for target in targets:
        exporter = open_exporter(target)
        stack.callback(exporter.close)
        yield exporter, target.timeout_s
