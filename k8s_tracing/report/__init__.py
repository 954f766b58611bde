# SPDX-License-Identifier: Apache-2.0
"""Drawing spans and tables; nothing is computed here but where things stand on a page."""
