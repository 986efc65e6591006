"""Requests that get a sentence: which, with which status, and in OpenAI's shape."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from PIL import Image

from siqvl.serving import fetch_picture
from tests.data.made_pictures import bomb
from tests.serving.server.running_server import (
    Running,
    assistant,
    body,
    running,
    sentence,
    until,
    user,
)

SMALL = Image.new("RGB", (8, 8), "red")
ASK = user("what is it?", SMALL)
KEY = "a-key-that-nobody-guesses"


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "unknown": ({"top_k": 5}, 400, "unknown key `top_k`, did you mean `top_p`?"),
    "penalty": ({"frequency_penalty": 0.5}, 400, "`frequency_penalty` has no effect on this model"),
    "tools": ({"tools": [{"type": "function"}]}, 400, "`tools` has no effect"),
    "JSON": ({"response_format": {"type": "json_object"}}, 400, "`response_format` has no effect"),
    "bias": ({"logit_bias": {"50256": -100}}, 400, "`logit_bias` has no effect"),
    "temperature": ({"temperature": 2.5}, 400, "`temperature`: Input should be less than or"),
    "a text": ({"temperature": "1"}, 400, "`temperature`: Input should be a valid number"),
    "top_p": ({"top_p": 0}, 400, "`top_p`: Input should be greater than 0"),
    "none": ({"max_tokens": 0}, 400, "`max_tokens`: Input should be greater than or equal to 1"),
    "two": ({"max_tokens": 1, "max_completion_tokens": 2}, 400, "`max_tokens` and `max_completion"),
    "n": ({"n": 9}, 400, "`n` is 9, at most 8 are written"),
    "tops": ({"top_logprobs": 2}, 400, "`top_logprobs` needs `logprobs: true`"),
    "21 tops": ({"logprobs": True, "top_logprobs": 21}, 400, "`top_logprobs`: Input should be"),
    "options": ({"stream_options": {}}, 400, "`stream_options` needs `stream: true`"),
    "stops": ({"stop": ["a"] * 5}, 400, "`stop"),
    "empty stop": ({"stop": ""}, 400, "`stop"),
    "model": ({"model": "gpt-9"}, 404, "there is no model `gpt-9` here; there is `small`"),
    "length": ({"max_tokens": 10**6}, 400, "the conversation takes "),
    "no messages": ({"messages": []}, 400, "`messages`: List should have at least 1 item"),
    "messages": ({"messages": "hi"}, 400, "`messages`: Input should be a valid list"),
    "role": (
        {"messages": [{"role": "tool", "content": "1"}]},
        400,
        'turn 1 of messages has role "to',
    ),
    "said": ({"messages": [user("hi"), assistant("ho")]}, 400, "wrong roles: messages end with a"),
    "named": ({"messages": [user("hi") | {"name": "Bo"}]}, 400, "`name` of a message is not shown"),
    "blank": ({"messages": [user(" ")]}, 400, "turn 1 of messages is empty"),
    "marks": ({"messages": [user("hi<|im_end|>")]}, 400, "control token in text: <|im_end|> would"),
    "no picture": ({"messages": [user("a <image>")]}, 400, "1 <image> marks in its text, but 0"),
    "long": ({"messages": [user("x" * 20_001)]}, 400, "text too long: 20001 characters in all"),
    "sound": (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        400,
        'part 1 of turn 1 of messages has type "input_audio": known are',
    ),
    "address": (
        {"messages": [user("?", "https://example.org/a.png")]},
        400,
        "addresses are not fetched by this server: send data URIs",
    ),
    "path": ({"messages": [user("?", "/etc/passwd")]}, 400, "picture 1 is neither a data URI"),
    "file": ({"messages": [user("?", "file:///etc/passwd")]}, 400, "picture 1 is neither a data"),
    "base64": (
        {"messages": [user("?", "data:image/png;base64,§")]},
        400,
        "picture 1 is a data URI without the whole base64 text of a file",
    ),
    "cut base64": (
        {"messages": [user("?", SMALL, uri(b"half")[:-3])]},
        400,
        "picture 2 is a data URI without the whole base64 text of a file",
    ),
    "empty picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": None}]}]},
        400,
        "part 1 of turn 1 of messages holds no picture",
    ),
    "no url": (
        {"messages": [ASK, assistant("ho"), {"role": "user", "content": [{"type": "image"}]}]},
        400,
        "part 1 of turn 3 of messages holds no picture",
    ),
    "no image": (
        {"messages": [user("?", uri(b"import os"))]},
        400,
        "picture 1: the picture cannot",
    ),
    "half": (
        {"messages": [user("?", SMALL, uri(b"\x89PNG\r\n\x1a\nhalf"))]},
        400,
        "picture 2: the picture cannot be decoded; send one of PNG, JPEG",
    ),
    "too large": (
        {"messages": [user("?", uri(bomb(2_000, 501)))]},
        400,
        "picture 1: image too large: 2000x501 pixels, 1000000 are allowed",
    ),
}


@pytest.mark.parametrize(("values", "status", "said"), WRONG.values(), ids=WRONG)
def test_wrong_requests_are_one_sentence(
    served: Running, values: dict[str, Any], status: int, said: str
) -> None:
    response = served.client.post("/v1/chat/completions", json=body(ASK) | values)
    assert sentence(response, status).startswith(said)
    until(lambda: served.service.door.inside == 0)


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        (b"{", {}, 400, "the body is no JSON"),
        (b"[1]", {}, 400, "the body is no JSON object"),
        (b"\xff{}", {}, 400, "the body is no JSON"),
        (b"[" * 100_000, {}, 400, "the body is no JSON"),
        (b'{"temperature": NaN}', {}, 400, "the body is no JSON"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "send JSON"),
        (b"{}", {"Content-Encoding": "gzip"}, 415, "a compressed body is not read"),
    ],
)
def test_bodies_that_are_none(
    served: Running, content: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    headers = {"Content-Type": "application/json", **headers}
    response = served.client.post("/v1/chat/completions", content=content, headers=headers)
    assert sentence(response, status).startswith(said)


def test_paths_that_are_none(served: Running) -> None:
    assert sentence(served.client.get("/v1/nothing"), 404) == "there is nothing at this path"
    assert sentence(served.client.get("/../../etc/passwd"), 404) == "there is nothing at this path"
    response = served.client.get("/v1/chat/completions")
    assert sentence(response, 405) == "this path has another method"
    assert "no model" in sentence(served.client.get("/v1/models/other"), 404)


def test_pictures_are_limited_over_the_whole_request(small) -> None:
    with running(*small, max_request_pixels=200, max_pictures=4) as found:
        assert found.chat(user("?", SMALL, SMALL, SMALL)).status_code == 200
        said = sentence(found.chat(user("?", *[SMALL] * 4)), 400)
        assert said == "its pictures have more than 200 pixels together"
        said = sentence(
            found.chat(user("?", SMALL, SMALL), assistant("a"), user("?", SMALL, SMALL)), 400
        )
        assert said == "its pictures have more than 200 pixels together"
        said = sentence(found.chat(user("?", *[SMALL] * 5)), 400)
        assert said == "5 pictures, at most 4 are read"


def test_a_body_is_limited_while_it_is_read(small) -> None:
    with running(*small, max_body_bytes=10_000) as found:
        big = json.dumps(body(user("x" * 10_000))).encode()
        headers = {"Content-Type": "application/json"}
        response = found.client.post("/v1/chat/completions", content=big, headers=headers)
        assert sentence(response, 413) == "the request has more than 10,000 bytes"

        sent = 0

        def endless() -> Any:  # says no length
            nonlocal sent
            while sent < 10**9:
                sent += 1_000
                yield b" " * 1_000

        # the connection may be closed while it still sends
        with contextlib.suppress(httpx2.TransportError):
            response = found.client.post("/v1/chat/completions", content=endless(), headers=headers)
            assert sentence(response, 413) == "the request has more than 10,000 bytes"
        assert sent < 10**8
        assert found.chat(user("hi")).status_code == 200
        assert found.service.door.held == 0


def test_keys_are_asked_for(small) -> None:
    with running(*small, KEY, "another-key-of-twenty") as found:
        assert found.client.get("/v1/models").status_code == 200
        none = {"Authorization": ""}
        for path in ("/v1/models", "/v1/models/small"):
            for headers in (none, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
                response = found.client.get(path, headers=headers)
                assert "send an API key" in sentence(response, 401)
                assert response.headers["www-authenticate"] == "Bearer"
        response = found.client.post("/v1/chat/completions", json=body(ASK), headers=none)
        assert response.json()["error"]["code"] == "invalid_api_key"
        second = {"Authorization": "Bearer another-key-of-twenty"}
        answer = found.client.post("/v1/chat/completions", json=body(ASK), headers=second)
        assert answer.status_code == 200
        for path in ("/health", "/ready", "/metrics", "/"):
            assert found.client.get(path, headers=none).status_code == 200


def test_pages_of_the_web_cannot_ask(small, served: Running) -> None:
    """By a name that they made ours, where no key stands before."""
    response = served.client.get("/v1/models", headers={"Host": "evil.example"})
    assert "on this machine alone" in sentence(response, 403)
    for host in ("localhost:1234", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert served.client.get("/v1/models", headers={"Host": host}).status_code == 200
    assert not any(name.startswith("access-control") for name in response.headers)
    with running(*small, open=True) as found:
        assert found.client.get("/v1/models", headers={"Host": "a.example"}).status_code == 200


def test_a_fault_of_ours_is_a_sentence(small, served: Running, monkeypatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("secret /home/someone/file")

    monkeypatch.setattr(served.service.pictures, "pixels", fails)
    response = served.chat(ASK)
    assert sentence(response, 500) == "the server failed at this request; its log says why"
    assert "secret" not in response.text


def test_who_sends_too_slowly_is_let_go(small) -> None:
    with running(*small, body_seconds=0.5) as found:
        address = ("127.0.0.1", found.port)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        rest = b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        for sent, expected in ((b"", b""), (head, b""), (head + rest, b"HTTP/1.1 408")):
            with socket.create_connection(address, timeout=10) as client:
                client.sendall(sent)
                start = time.monotonic()
                answer = client.recv(12)
                assert answer == expected[:12]
                assert 0.3 < time.monotonic() - start < 3
        # one that waits between two requests is no such
        assert found.chat(user("hi")).status_code == 200
        time.sleep(0.8)
        assert found.chat(user("hi")).status_code == 200
        until(lambda: found.service.door.inside == 0)


def test_addresses_are_fetched_where_that_is_allowed_and_public(
    small, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SMALL.save(tmp_path / "picture.png")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    site = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{site.server_port}"
    try:
        with running(*small, allow_urls=True, max_request_pixels=70) as found:
            for address in (
                f"{place}/picture.png",
                "http://169.254.169.254/latest",
                "http://[::1]/",
            ):
                assert "is no public address" in sentence(found.chat(user("?", address)), 400)
            monkeypatch.setattr(fetch_picture, "is_public", lambda address: True)
            fetched = found.chat(user("what is it?", f"{place}/picture.png"))
            assert fetched.json()["choices"] == found.chat(ASK).json()["choices"]
            assert "status 404" in sentence(found.chat(user("?", f"{place}/nothing")), 400)
            twice = found.chat(user("?", *[f"{place}/picture.png"] * 2))
            assert "more than 70 pixels together" in sentence(twice, 400)
    finally:
        site.shutdown()
        site.server_close()
