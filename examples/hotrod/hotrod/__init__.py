# SPDX-License-Identifier: Apache-2.0
"""HotROD, rides on demand: four small services whose requests make one trace.

Each runs in a process of its own: `python -m hotrod frontend`, `customer`, `driver`, `route`.
"""
