# SPDX-License-Identifier: Apache-2.0
"""python -m hotrod.healthy SERVICE: does the service on this host answer? For a container's health check."""

from __future__ import annotations

import sys

from .config import SERVICES
from .processes import is_healthy

if __name__ == "__main__":
    name = sys.argv[1]
    sys.exit(0 if is_healthy(name, SERVICES[name]) else f"{name} does not answer")
