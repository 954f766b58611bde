# SPDX-License-Identifier: Apache-2.0
"""OTLP over HTTP, binary protobuf."""

from __future__ import annotations

import gzip
import time
from email.utils import parsedate_to_datetime
from importlib import metadata

import requests

from k8s_tracing.agent.endpoint import Endpoint
from k8s_tracing.agent.otlp_answer import (
    RefusedError,
    RetryableError,
    rejected_spans,
    status_message,
)
from k8s_tracing.errors import ExportError

CONTENT_TYPE = "application/x-protobuf"

# OTLP's specification, "Retryable Response Codes".
RETRYABLE = frozenset({429, 502, 503, 504})

# Level 1: a third of the time of the default for some per cent more bytes.
_GZIP_LEVEL = 1


class HttpExporter:
    """Posts requests over one kept-open connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._session = requests.Session()
        self._session.headers.update(
            {
                "User-Agent": f"k8s-tracing-agent/{metadata.version('k8s-tracing')}",
                **endpoint.headers,
                "Content-Type": CONTENT_TYPE,
            }
        )
        if endpoint.gzip:
            self._session.headers["Content-Encoding"] = "gzip"
        # Said with each request: what is said for the session, REQUESTS_CA_BUNDLE goes before.
        self._verify = str(endpoint.certificate) if endpoint.certificate else None
        if endpoint.client_certificate:
            key = endpoint.client_key
            certificate = str(endpoint.client_certificate)
            self._session.cert = (certificate, str(key)) if key else certificate

    @property
    def name(self) -> str:
        """Where it posts to."""
        return self._endpoint.name

    def send(self, request: bytes, timeout_s: float) -> int:
        """Post once; see Exporter.send."""
        body = gzip.compress(request, _GZIP_LEVEL) if self._endpoint.gzip else request
        try:
            # A redirected POST would be repeated as a GET: taken for an error instead.
            answer = self._session.post(
                self._endpoint.url,
                data=body,
                timeout=timeout_s,
                allow_redirects=False,
                verify=self._verify,
            )
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
        ) as error:
            raise ExportError(f"the endpoint {self._endpoint.address!r} is not a URL") from error
        except requests.exceptions.SSLError as error:
            raise RetryableError(f"TLS: {_cause(error)}") from error
        except requests.exceptions.Timeout as error:
            raise RetryableError(f"no answer within {timeout_s:.1f} s") from error
        except (requests.exceptions.RequestException, OSError) as error:
            raise RetryableError(_cause(error)) from error
        binary = CONTENT_TYPE in answer.headers.get("Content-Type", "")
        if 200 <= answer.status_code < 300:
            return rejected_spans(answer.content) if binary else 0
        said = status_message(answer.content) if binary else ""
        reason = f"HTTP {answer.status_code} {answer.reason}{': ' if said else ''}{said}"
        if answer.status_code in RETRYABLE:
            raise RetryableError(reason, retry_after_s(answer.headers.get("Retry-After")))
        raise RefusedError(reason)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()


def retry_after_s(text: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date."""
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _cause(error: BaseException) -> str:
    """The innermost reason: what requests wraps around it repeats URL and objects."""
    while True:
        reason = getattr(error, "reason", None)
        inner = (
            reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__
        )
        if inner is None:
            break
        error = inner
    return str(error) or type(error).__name__
