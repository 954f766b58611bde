# SPDX-License-Identifier: Apache-2.0
"""What things cost. HotROD, which some of them run, is an example and not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples/hotrod"))
