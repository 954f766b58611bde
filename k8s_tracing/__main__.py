# SPDX-License-Identifier: Apache-2.0
"""`python -m k8s_tracing` is the command `k8s-tracing`."""

import sys

from k8s_tracing.cli import main

if __name__ == "__main__":
    sys.exit(main())
