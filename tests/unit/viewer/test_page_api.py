"""What a page that listens is told."""

import asyncio

import pytest

from k8s_tracing.viewer import page_api
from k8s_tracing.viewer.page_api import News
from tests.unit.viewer.conftest import trace_id


def test_a_listener_is_told_of_each_trace_once() -> None:
    async def listen() -> None:
        news = News()
        listener, other = news.listen(), news.listen()
        assert listener is not None
        assert other is not None
        news.publish([trace_id(1), trace_id(2)])
        news.publish([trace_id(1)])
        assert await listener.wait() == ([trace_id(1), trace_id(2)], False)
        news.leave(other)
        news.publish([trace_id(3)])
        assert await listener.wait() == ([trace_id(3)], False)
        assert await other.wait() == ([trace_id(1), trace_id(2)], False)

    asyncio.run(listen())


def test_who_is_too_slow_is_told_so() -> None:
    async def listen() -> None:
        news = News()
        listener = news.listen()
        assert listener is not None
        for first in range(0, 3 * page_api.MAX_NEWS, 100):
            news.publish([trace_id(n) for n in range(first, first + 100)])
        await asyncio.sleep(0)
        grown, missed = await listener.wait()
        assert missed
        assert len(grown) <= page_api.MAX_NEWS
        news.publish([trace_id(1)])
        assert await listener.wait() == ([trace_id(1)], False)

    asyncio.run(listen())


def test_without_news_there_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_api, "_HEARTBEAT_S", 0.01)

    async def listen() -> None:
        listener = News().listen()
        assert listener is not None
        assert await listener.wait() == ([], False)

    asyncio.run(listen())


def test_so_many_may_listen() -> None:
    async def listen() -> None:
        news = News()
        listeners = [news.listen() for _ in range(page_api.MAX_LISTENERS)]
        assert news.listen() is None
        assert listeners[0] is not None
        news.leave(listeners[0])
        assert news.listen() is not None

    asyncio.run(listen())


def test_news_before_anybody_listens_are_nobodys() -> None:
    News().publish([trace_id(1)])
