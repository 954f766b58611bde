# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry's runtime context with the native span in it.

One context variable serves both worlds: it holds an OpenTelemetry ``Context``, or a native span that stands for
"the Context below, with this span". The ``Context`` of the latter is made when somebody asks for it.

Chosen by ``OTEL_PYTHON_CONTEXT=k8s_tracing``, or put in place by the native backends over OpenTelemetry's default
context, whose variable it goes on using: what was attached before stays attached, old tokens can be detached.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Any

import opentelemetry.context as context_api
from opentelemetry.context.context import Context, _RuntimeContext

from k8s_tracing import _core


class RuntimeContext(_RuntimeContext):
    """What ``opentelemetry.context`` calls.

    Args:
        variable: the context variable to use; a new one when not given.
    """

    def __init__(self, variable: ContextVar[Any] | None = None) -> None:
        self.variable: ContextVar[Any] = variable or ContextVar(
            "k8s_tracing_context",
            default=Context(),  # noqa: B039 - a Context cannot be changed
        )

    def attach(self, context: Context) -> Token[Context]:
        """Make `context` current; returns what `detach` wants back."""
        # Instrumentations attach what `propagate.extract` gives: with OTEL_PROPAGATORS=none that is None.
        return self.variable.set(Context() if context is None else context)

    def get_current(self) -> Context:
        """Return the current Context, with the current span in it."""
        context: Context = self.variable.get()  # no native span is there yet: see use_native()
        return context

    def detach(self, token: Token[Context]) -> None:
        """Make current what was so before the `attach` that returned `token`.

        Raises:
            ValueError: the token was made in another context or used already; OpenTelemetry logs it.
        """
        self.variable.reset(token)


def install() -> ContextVar[Any]:
    """Put the runtime context in place; returns the variable that holds the current span. Idempotent."""
    existing: Any = context_api._RUNTIME_CONTEXT
    if isinstance(existing, RuntimeContext):
        return existing.variable
    variable = getattr(existing, "_current_context", None)
    runtime = RuntimeContext(variable if isinstance(variable, ContextVar) else None)
    context_api._RUNTIME_CONTEXT = runtime
    return runtime.variable


def use_native() -> None:
    """Let the runtime context see native spans: `_core` is set up now.

    OpenTelemetry may load the runtime context long before, while it is half imported itself.
    """
    runtime: Any = context_api._RUNTIME_CONTEXT
    runtime.get_current = _core.current_context
