"""OpenTelemetry's instrumentation of gRPC, on a service without generated code: its messages are bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.instrumentation import grpc as grpc_instrumentation

import k8s_tracing
from tests.support.recorded import Recorded, attributes_of, instrumented

UNARY, STREAM = ["unary_unary", "stream_unary"], ["unary_stream", "stream_stream"]


def answer(request: bytes, context: Any) -> bytes:
    with k8s_tracing.span("inside"):
        if request == b"abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such driver")
        if request == b"fail":
            raise ValueError("no driver")
        return request.upper()


def answer_all(request: bytes, context: Any) -> Iterator[bytes]:
    yield answer(request, context)
    yield b"!"


async def answer_aio(request: bytes, context: Any) -> bytes:
    with k8s_tracing.span("inside"):
        if request == b"abort":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such driver")
        await asyncio.sleep(0)
        return request.upper()


async def answer_all_aio(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield await answer_aio(request, context)
    yield b"!"


async def _first(requests: AsyncIterator[bytes]) -> bytes:
    async for request in requests:
        return request
    raise AssertionError("no request")


async def _answer_requests_aio(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return await answer_aio(await _first(requests), context)


async def _answer_all_requests_aio(
    requests: AsyncIterator[bytes], context: Any
) -> AsyncIterator[bytes]:
    async for part in answer_all_aio(await _first(requests), context):
        yield part


def service(*, aio: bool) -> grpc.GenericRpcHandler:
    methods = {
        "unary_unary": answer_aio if aio else answer,
        "unary_stream": answer_all_aio if aio else answer_all,
        "stream_unary": _answer_requests_aio
        if aio
        else lambda requests, context: answer(next(requests), context),
        "stream_stream": _answer_all_requests_aio
        if aio
        else lambda requests, context: answer_all(next(requests), context),
    }
    handlers = {
        name: getattr(grpc, f"{name}_rpc_method_handler")(method)
        for name, method in methods.items()
    }
    return grpc.method_handlers_generic_handler("shop.Drivers", handlers)


def call(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    """Call one of the four methods of a synchronous channel; returns all it answered."""
    stub = getattr(channel, method)(f"/shop.Drivers/{method}")
    given = iter([request, b"more"]) if method.startswith("stream") else request
    answered = stub(given, timeout=10)
    return answered if method in UNARY else b"".join(answered)


def check_grpc(recorded: Recorded, method: str, status: grpc.StatusCode) -> None:
    """Caller, client, server and what is inside are one trace with the attributes of gRPC."""
    caller, client, server, inside = recorded.spans()
    assert client.parent_span_id == caller.span_id
    assert server.parent_span_id == client.span_id
    assert inside.parent_span_id == server.span_id
    assert (client.kind, server.kind) == ("CLIENT", "SERVER")
    for span in (client, server):
        assert span.name == f"/shop.Drivers/{method}"
        expected = {
            "rpc.system": "grpc",
            "rpc.service": "shop.Drivers",
            "rpc.method": method,
            "rpc.grpc.status_code": status.value[0],
        }
        assert attributes_of(span, expected) == expected
    assert client.status == ("UNSET" if status is grpc.StatusCode.OK else "ERROR")
    # A not-found is no fault of the server, as OpenTelemetry has it.
    assert server.status == "UNSET"


@contextlib.contextmanager
def connected() -> Iterator[grpc.Channel]:
    """A channel to the service; both sides are instrumented."""
    with instrumented(
        grpc_instrumentation.GrpcInstrumentorServer(),
        grpc_instrumentation.GrpcInstrumentorClient(),
    ):
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((service(aio=False),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
        server.stop(10).wait()


@contextlib.asynccontextmanager
async def connected_aio() -> AsyncIterator[grpc.aio.Channel]:
    """The same with asyncio on both sides."""
    with instrumented(
        grpc_instrumentation.GrpcAioInstrumentorServer(),
        grpc_instrumentation.GrpcAioInstrumentorClient(),
    ):
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((service(aio=True),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
        await server.stop(10)


@pytest.mark.parametrize("method", [*UNARY, *STREAM])
def test_grpc_client_and_server_are_one_trace(recorded: Recorded, method: str) -> None:
    with connected() as channel, k8s_tracing.span("caller"):
        expected = b"HELLO" if method in UNARY else b"HELLO!"
        assert call(channel, method, b"hello") == expected
    check_grpc(recorded, method, grpc.StatusCode.OK)


@pytest.mark.parametrize("request_", [b"abort", b"fail"])
def test_a_grpc_call_that_fails(recorded: Recorded, request_: bytes) -> None:
    with (
        connected() as channel,
        k8s_tracing.span("caller"),
        pytest.raises(grpc.RpcError) as raised,
    ):
        call(channel, "unary_unary", request_)
    if request_ == b"abort":
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        check_grpc(recorded, "unary_unary", grpc.StatusCode.NOT_FOUND)
    else:
        assert raised.value.code() is grpc.StatusCode.UNKNOWN
        _, client, handled, inside = recorded.spans()
        assert client.status == "ERROR"
        for span in (handled, inside):
            assert {event.attributes["exception.type"] for event in span.events} == {"ValueError"}


@pytest.mark.parametrize("method", [*UNARY, *STREAM])
def test_grpc_aio_client_and_server_are_one_trace(recorded: Recorded, method: str) -> None:
    async def several() -> AsyncIterator[bytes]:
        yield b"hello"
        yield b"more"

    async def main() -> bytes:
        async with connected_aio() as channel:
            with k8s_tracing.span("caller"):
                stub = getattr(channel, method)(f"/shop.Drivers/{method}")
                called = stub(several() if method.startswith("stream") else b"hello")
                if method in UNARY:
                    return await called
                return b"".join([part async for part in called])

    assert asyncio.run(main()) == (b"HELLO" if method in UNARY else b"HELLO!")
    check_grpc(recorded, method, grpc.StatusCode.OK)


def test_a_grpc_aio_call_that_is_aborted(recorded: Recorded) -> None:
    async def main() -> None:
        async with connected_aio() as channel:
            with k8s_tracing.span("caller"), pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary("/shop.Drivers/unary_unary")(b"abort")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(main())
    check_grpc(recorded, "unary_unary", grpc.StatusCode.NOT_FOUND)
