# SPDX-License-Identifier: Apache-2.0
"""What spans say about their system: functions of SpanRecords, with no input or output."""
