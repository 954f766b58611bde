# SPDX-License-Identifier: Apache-2.0
"""Where an application finds an LTTng session daemon."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def daemon_folders(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the folders in which liblttng-ust looks for the socket of a session daemon.

    Source: lttng-ust(3), LTTNG_UST_APP_PATH (from 2.14), LTTNG_HOME and HOME.
    """
    if environ.get("LTTNG_UST_APP_PATH"):
        return [Path(environ["LTTNG_UST_APP_PATH"])]
    home = environ.get("LTTNG_HOME") or environ.get("HOME")
    return [*([Path(home) / ".lttng"] if home else []), Path("/var/run/lttng")]


def daemon_sockets(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the sockets of session daemons that this process could register with, also those of dead daemons.

    The number at the end is the protocol's generation: 8 for LTTng 2.13 and 2.14, 11 from 2.15.
    """
    return [
        socket
        for folder in daemon_folders(environ)
        for socket in sorted(folder.glob("lttng-ust-sock-*"))
        if socket.is_socket()
    ]
