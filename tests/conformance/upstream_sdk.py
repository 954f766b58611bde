"""Runs OpenTelemetry SDK's tests of its Tracer and Span on ours; prints each result as JSON.

To be run as a program, with the path of test_trace.py.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
import unittest
from typing import Any

from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import SpanContext

from k8s_tracing.backends.memory import MemoryBackend
from k8s_tracing.provider import TracerProvider
from k8s_tracing.sampling import Sampling
from k8s_tracing.settings import Limits

CASES = (
    "TestTracer",
    "TestSpanCreation",
    "TestReadableSpan",
    "TestSpan",
    "TestSpanProcessor",
    "TestParentChildSpanException",
)


class Provider(TracerProvider):
    """Ours, made as the SDK's is."""

    def __init__(
        self, sampler: Any = None, resource: Any = None, span_limits: Any = None, **_: Any
    ) -> None:
        limits = Limits()
        if span_limits is not None:
            limits = Limits(
                events=span_limits.max_events,
                links=span_limits.max_links,
                attributes=span_limits.max_span_attributes,
            )
        attributes = dict(resource.attributes) if resource is not None else {}
        super().__init__(MemoryBackend(attributes, limits, Sampling(sampler=sampler)))


def new_tracer(span_limits: Any = None, resource: Any = None) -> Any:
    return Provider(span_limits=span_limits, resource=resource).get_tracer(__name__)


def load(path: str) -> Any:
    # the name that a test expects its exception's module to have
    spec = importlib.util.spec_from_file_location("tests.trace.test_trace", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ours = types.ModuleType("trace")
    vars(ours).update({name: getattr(sdk, name) for name in dir(sdk) if name[:2] != "__"})
    vars(ours)["TracerProvider"] = Provider
    module.trace, module.new_tracer = ours, new_tracer
    return module


class Results(unittest.TextTestResult):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.all: dict[str, str | None] = {}

    def _note(self, test: unittest.TestCase, error: Any = None) -> None:
        name = ".".join(test.id().split(".")[-2:])
        self.all[name] = None if error is None else f"{error[0].__name__}: {error[1]}"

    def addSuccess(self, test: Any) -> None:
        self._note(test)

    def addFailure(self, test: Any, error: Any) -> None:
        self._note(test, error)

    addError = addFailure


def same(self: unittest.TestCase, first: Any, second: Any, message: Any = None) -> None:
    """A parent's SpanContext is kept as its ids: it is an equal one and not the same object."""
    both = isinstance(first, SpanContext) and isinstance(second, SpanContext)
    if first is not second and not (both and first == second):
        self.fail(message or f"{first!r} is not {second!r}")


def main() -> None:
    module = load(sys.argv[1])
    unittest.TestCase.assertIs = same  # type: ignore[method-assign]
    suite = unittest.TestSuite(
        unittest.defaultTestLoader.loadTestsFromTestCase(getattr(module, case)) for case in CASES
    )
    runner = unittest.TextTestRunner(stream=sys.stderr, resultclass=Results)  # type: ignore[arg-type]
    results: Any = runner.run(suite)
    print(json.dumps(results.all))


if __name__ == "__main__":
    main()
