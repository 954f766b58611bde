# SPDX-License-Identifier: Apache-2.0
"""The exceptions that this package raises: one tree, in one file."""


class K8sTracingError(Exception):
    """Base of every error that this package raises; its text says what to do next."""


class RelayError(K8sTracingError):
    """A trace cannot be read, or the relay's native library is missing."""


class AgentError(K8sTracingError):
    """The node agent cannot start or go on."""
