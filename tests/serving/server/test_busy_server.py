"""More than can be answered, clients that leave, time that runs out, and the end of a server."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

import pytest

from tests.serving.server.running_server import (
    Running,
    body,
    events,
    running,
    sentence,
    until,
    user,
)

LONG = {"max_tokens": 400}  # eight seconds of the slow model


def asking(found: Running, **values: Any) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            answers.append(found.chat(user("hi"), **values))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, answers


def opened(found: Running, **values: Any) -> socket.socket:
    """A request on a connection of its own, whose answer nobody has read."""
    content = json.dumps(body(user("hi"), **values)).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    client = socket.create_connection(("127.0.0.1", found.port), timeout=10)
    client.sendall(head.encode() + content)
    return client


def test_who_comes_beyond_the_room_is_sent_away(slow) -> None:
    with running(*slow, places=2, waiting=1) as found:
        engine = found.service.engine
        inside = [asking(found, **LONG) for _ in range(3)]
        until(lambda: engine.running == 2 and engine.queued == 1)
        response = found.chat(user("hi"))
        assert "3 requests are being answered or wait already; ask again in" in sentence(
            response, 429
        )
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert response.json()["error"]["type"] == "rate_limit_error"
        for path in ("/health", "/ready", "/metrics", "/v1/models"):
            assert found.client.get(path).status_code == 200
        metrics = found.client.get("/metrics").text
        assert "siqvl_running 2.0" in metrics
        assert "siqvl_waiting 1.0" in metrics
        assert 'siqvl_requests_total{path="/v1/chat/completions",status="429"} 1.0' in metrics
        found.service.engine.close()
        for thread, _ in inside:
            thread.join()


def test_choices_beyond_the_room_leave_nothing_behind(slow) -> None:
    with running(*slow, places=2, waiting=1) as found:
        response = found.chat(user("hi"), n=4, max_tokens=2)
        assert "ask again" in sentence(response, 429)
        assert found.chat(user("hi"), n=3, max_tokens=2).status_code == 200
        assert found.service.engine.running == found.service.engine.queued == 0


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_is_not_written_for(slow, stream: bool) -> None:
    with running(*slow, places=1, waiting=2) as found:
        with opened(found, stream=stream, **LONG):
            until(lambda: found.service.engine.running == 1)
            if stream:
                time.sleep(0.2)
        start = time.monotonic()
        until(lambda: found.service.engine.running == 0 and found.service.door.inside == 0)
        assert time.monotonic() - start < 2
        assert found.chat(user("hi"), max_tokens=1).status_code == 200
        metrics = found.client.get("/metrics").text
        assert 'siqvl_requests_total{path="/v1/chat/completions",status="499"} 1.0' in metrics


def test_an_answer_has_its_time(slow) -> None:
    with running(*slow, request_seconds=0.6) as found:
        response = found.chat(user("hi"), **LONG)
        assert sentence(response, 504).startswith("the answer took longer than 0.6 s")
        *chunks, last = events(found.chat(user("hi"), stream=True, **LONG))
        assert len(chunks) > 3
        assert last["error"]["code"] == "timeout"
        until(lambda: found.service.engine.running == 0)


def test_who_does_not_read_is_let_go(slow) -> None:
    """A stream that nobody reads holds a place no longer than a request may take."""
    limits = {"request_seconds": 1.0, "places": 1, "waiting": 0}
    with running(*slow, **limits) as found, opened(found, stream=True, **LONG):
        until(lambda: found.service.engine.running == 1)
        until(lambda: found.service.door.inside == 0, 5)
        until(lambda: found.chat(user("hi"), max_tokens=1).status_code == 200, 5)


def test_a_pass_that_fails_is_a_sentence(slow) -> None:
    model, _ = slow
    with running(*slow) as found:
        hook = model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
        assert "its log says why" in sentence(found.chat(user("hi")), 500)
        *_, last = events(found.chat(user("hi"), stream=True))
        assert last["error"]["code"] == "internal"
        hook.remove()
        assert found.chat(user("hi"), max_tokens=1).status_code == 200


def test_running_answers_end_and_new_ones_are_told(slow) -> None:
    with running(*slow) as found:
        thread, answers = asking(found, max_tokens=50)
        until(lambda: found.service.engine.running == 1)
        assert found.client.get("/ready").status_code == 200
        found.server.handle_exit(15, None)
        response = found.chat(user("hi"))
        assert sentence(response, 503) == "this server is stopping; ask again"
        assert response.headers["retry-after"] == "1"
        assert found.client.get("/ready").status_code == 503
        assert found.client.get("/health").status_code == 200
        thread.join()
        assert answers[0].json()["usage"]["completion_tokens"] == 50
        until(lambda: found.server.should_exit)


def test_answers_that_do_not_end_in_time_are_ended(slow) -> None:
    with running(*slow, stop_seconds=0.5) as found:
        thread, answers = asking(found, **LONG)
        until(lambda: found.service.engine.running == 1)
        found.server.handle_exit(15, None)
        thread.join(timeout=5)
        assert sentence(answers[0], 503) == "this server is stopping; ask again"
