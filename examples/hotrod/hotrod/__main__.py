# SPDX-License-Identifier: Apache-2.0
"""python -m hotrod SERVICE: run one of the four services in this process."""

from __future__ import annotations

import importlib
import signal
import sys

from . import config


def main() -> None:
    settings = config.parse(sys.argv[1:])
    # Leave by the interpreter's normal exit when stopped, so that what waits for it (a temporary
    # folder, an exporter with spans left) has its turn.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Only the service that runs is imported: the others' libraries cost time and memory.
    importlib.import_module(f".{settings.service}", __package__).run(settings)


if __name__ == "__main__":
    main()
