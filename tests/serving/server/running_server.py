"""A server in a thread of the test's own process, at a free port."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
from PIL import Image

from siqvl.model.assemble import assemble
from siqvl.serving.server.api_keys import ApiKeys
from siqvl.serving.server.graceful import Server
from siqvl.serving.server.serve_checkpoint import made_service
from siqvl.serving.server.server_settings import ServerSettings
from siqvl.serving.server.service import Service
from siqvl.serving.settings import ServingSettings

BASE = Path(__file__).parents[3] / "recipes" / "tiny_base"
MODEL = "small"
LIMITS = ServingSettings(
    max_new_tokens=12,
    batch_size=4,
    max_rows=4,
    max_image_pixels=1_000_000,
    max_characters=20_000,
    attention="sdpa",
)


class Running(NamedTuple):
    """A server, and a client of it."""

    client: httpx2.Client
    service: Service
    server: Server
    port: int

    def chat(self, *messages: dict[str, Any], **values: Any) -> httpx2.Response:
        return self.client.post("/v1/chat/completions", json=body(*messages, **values))


def until(what: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for what a server does once its answer is out, such as letting go of a request."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def small_model() -> tuple[Any, Any]:
    """The tiny base's own parts behind a projector that nobody trained."""
    import torch

    torch.manual_seed(0)
    return assemble(str(BASE / "vision"), str(BASE / "language"), max_image_tokens=16)


@contextmanager
def running(
    model: Any, processor: Any, *keys: str, limits: ServingSettings = LIMITS, **settings: Any
) -> Iterator[Running]:
    chosen = ServerSettings(port=0, **settings)
    found = made_service(model, processor, chosen, limits, ApiKeys(list(keys)), name=MODEL)
    with found as service:
        server = Server(service)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
        try:
            with httpx2.Client(
                base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False
            ) as client:
                yield Running(client, service, server, port)
        finally:
            server.handle_exit(15, None)
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()


def body(*messages: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": list(messages), **values}


def user(text: str, *pictures: Image.Image | str) -> dict[str, Any]:
    """What a user says after showing pictures, or addresses of some."""
    if not pictures:
        return {"role": "user", "content": text}
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": one if isinstance(one, str) else data_uri(one)}}
        for one in pictures
    ]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def data_uri(picture: Image.Image, format: str = "PNG") -> str:
    stream = io.BytesIO()
    picture.save(stream, format)
    encoded = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/{format.lower()};base64,{encoded}"


def events(response: httpx2.Response) -> list[Any]:
    """The objects of a stream; its last line as a text."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    data = [block.removeprefix("data: ") for block in blocks]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def sentence(response: httpx2.Response, status: int) -> str:
    """What a refused request is told."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert {*error} == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    assert "Traceback" not in response.text
    return error["message"]
