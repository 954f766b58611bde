"""Health and metrics over HTTP: what they say, and that nobody can hold them up."""

import http.client
import socket
import time
from collections.abc import Iterator

import pytest

from k8s_tracing.agent import health
from k8s_tracing.agent.health import HealthServer, Heartbeat
from k8s_tracing.errors import AgentError
from tests.support.wait import wait_for


def metrics(accept: str) -> tuple[bytes, str]:
    return f"asked for {accept}".encode(), "text/plain"


@pytest.fixture
def wrong() -> list[str]:
    return [""]


@pytest.fixture
def server(wrong: list[str]) -> Iterator[HealthServer]:
    checks = {"/healthz": lambda: "", "/readyz": lambda: wrong[0]}
    with HealthServer("127.0.0.1:0", checks, metrics) as server:
        yield server


def get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(server.address, timeout=30)
    try:
        connection.request(method, path, headers={"Accept": "text/x"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_answers(server: HealthServer, wrong: list[str]) -> None:
    assert get(server, "/healthz") == (200, "ok\n")
    assert get(server, "/readyz?verbose") == (200, "ok\n")
    wrong[0] = "the session is stopped"
    assert get(server, "/readyz") == (503, "the session is stopped\n")
    assert get(server, "/healthz") == (200, "ok\n")
    assert get(server, "/metrics") == (200, "asked for text/x")
    assert get(server, "/healthz", "HEAD") == (200, "")
    assert get(server, "/")[0] == 404
    assert get(server, "/healthz", "POST")[0] == 501


def test_slow_clients_hold_up_nobody(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_CLIENT_TIMEOUT_S", 0.5)
    host, _, port = server.address.partition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(health._MAX_CLIENTS // 2)]
    try:
        assert get(server, "/healthz")[0] == 200
        # One that goes on sending a byte now and then is ended as well.
        silent[0].settimeout(30)

        def is_ended() -> bool:
            try:
                silent[0].send(b"G")
                silent[0].setblocking(False)
                return silent[0].recv(1) == b""
            except BlockingIOError:
                return False
            except OSError:
                return True

        wait_for("the connection is ended", is_ended, 30, 0.1)
    finally:
        for each in silent:
            each.close()


def test_so_many_clients_and_no_more(server: HealthServer) -> None:
    host, _, port = server.address.partition(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(health._MAX_CLIENTS)]
    try:
        extra = socket.create_connection((host, int(port)))
        extra.settimeout(30)
        clients.append(extra)
        assert extra.recv(1) == b""
    finally:
        for each in clients:
            each.close()
    wait_for("places are free again", lambda: _answers(server), 30)


def _answers(server: HealthServer) -> bool:
    try:
        return get(server, "/healthz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_it_ends_while_somebody_is_connected(wrong: list[str]) -> None:
    with HealthServer("127.0.0.1:0", {}, metrics) as server:
        host, _, port = server.address.partition(":")
        client = socket.create_connection((host, int(port)))
        begin = time.monotonic()
    assert time.monotonic() - begin < 4
    client.close()


def test_an_address_that_is_taken_is_said(server: HealthServer) -> None:
    with pytest.raises(AgentError, match="--listen"):
        HealthServer(server.address, {}, metrics)


@pytest.mark.parametrize("listen", ["4319", "host", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_said(listen: str) -> None:
    with pytest.raises(AgentError, match="HOST:PORT"):
        HealthServer(listen, {}, metrics)


def test_a_loop_that_stands_still_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat = Heartbeat()
    assert heartbeat.check() == ""
    monkeypatch.setattr(health, "STALLED_S", -1.0)
    assert "has not turned" in heartbeat.check()
    monkeypatch.setattr(health, "STALLED_S", 60.0)
    heartbeat.beat()
    assert heartbeat.check() == ""
