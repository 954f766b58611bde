"""The native module in an interpreter: imported anew, in a second one, with a provider of another build."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import k8s_tracing
from k8s_tracing import _core
from k8s_tracing.backends.memory import MemoryBackend
from tests.support.interpreter import run


def test_the_module_can_be_imported_anew(backend: MemoryBackend) -> None:
    before = sys.modules["k8s_tracing._core"]
    del sys.modules["k8s_tracing._core"]
    try:
        again = importlib.import_module("k8s_tracing._core")
        assert again.Span is before.Span
        assert again.Tracer is before.Tracer
    finally:
        sys.modules["k8s_tracing._core"] = before
        k8s_tracing._core = before  # type: ignore[attr-defined]
    with k8s_tracing.span("work"):
        pass
    assert len(backend.records) == 1


def test_a_second_interpreter_is_refused_and_the_first_goes_on() -> None:
    module = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    printed = run(
        f"""
        import warnings
        warnings.simplefilter("ignore")
        import {module} as interpreters
        import k8s_tracing
        k8s_tracing.init("first", backend="memory")
        other = interpreters.create(*(["legacy"] if {sys.version_info >= (3, 13)} else []))
        interpreters.run_string(other, '''if True:
            try:
                import k8s_tracing.native
            except ImportError as error:
                print("refused:", error)
            import k8s_tracing
            k8s_tracing.init("second", backend="noop")
            with k8s_tracing.span("work"):
                print("falls back")
        ''')
        interpreters.destroy(other)
        with k8s_tracing.span("work") as span:
            print("first:", span.name)
        """
    )
    assert printed.startswith("refused: ")
    assert printed.endswith("falls back\nfirst: work\n")


def test_opentelemetry_loads_the_context_before_anything_else_of_us() -> None:
    printed = run(
        """
        from opentelemetry import baggage, context, trace
        print(type(context._RUNTIME_CONTEXT).__module__)
        token = context.attach(baggage.set_baggage("key", "value"))
        import k8s_tracing
        k8s_tracing.init("service", backend="memory")
        with k8s_tracing.span("work") as span:
            print(trace.get_current_span() is span, baggage.get_baggage("key"))
        context.detach(token)
        print(context.get_current())
        """,
        OTEL_PYTHON_CONTEXT="k8s_tracing",
    )
    assert printed == "k8s_tracing.context\nTrue value\n{}\n"


def test_a_provider_of_another_build_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "provider.c"
    source.write_text("const struct { unsigned abi; } k8s_tracing_provider = {9999};")
    library = tmp_path / "provider.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    with pytest.raises(OSError, match=r"provider\.so speaks version 9999"):
        _core.connect(library)
    empty = tmp_path / "empty.so"
    source.write_text("")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", empty, source], check=True)
    with pytest.raises(OSError, match="k8s_tracing_provider"):
        _core.connect(empty)
    with pytest.raises(OSError, match="no-such-file"):
        _core.connect("/no-such-file.so")


def test_limits_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        _core.set_limits(-1, 1, 1, 1, 1, 1)
