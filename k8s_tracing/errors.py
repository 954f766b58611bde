# SPDX-License-Identifier: Apache-2.0
"""The exceptions that this package raises: one tree, in one file."""


class K8sTracingError(Exception):
    """Base of every error that this package raises; its text says what to do next."""


class BackendUnavailable(K8sTracingError):
    """The backend that was asked for cannot work here; the text says why and what to do."""


class RelayError(K8sTracingError):
    """A trace cannot be read, or the relay's native library is missing."""


class AgentError(K8sTracingError):
    """The node agent cannot start or go on."""


class SessionError(AgentError):
    """LTTng's session daemon or a recording session cannot be set up, or does not answer."""


class ExportError(AgentError):
    """Spans cannot be sent as asked: a wrong endpoint, protocol or file."""


class ListenError(K8sTracingError):
    """A port cannot be listened on."""


class OtlpError(K8sTracingError):
    """Bytes or a file are not OTLP."""


class JaegerJsonError(K8sTracingError):
    """A file or an answer is not Jaeger's JSON."""


class ViewerError(K8sTracingError):
    """The viewer cannot start, or its store cannot be read or written."""
