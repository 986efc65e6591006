"""OpenAI's own Python client against `siqvl serve`, a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.server import Server
from siqvl.checkpoint import read_card
from siqvl.recipe import Stage
from tests.serving.server.running_server import user

openai = pytest.importorskip("openai", reason="the client is in the extra `dev`")

pytestmark = pytest.mark.integration

KEY = "a-key-that-nobody-guesses"


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "keys").write_text(f"{KEY}\n")
    found = Server(trained.checkpoint(Stage.DPO), folder, "--api-keys-file", str(folder / "keys"))
    found.start()
    yield found
    assert found.end() == 0
    assert found.faults() == []
    assert KEY not in (folder / "server.log").read_text()


@pytest.fixture
def client(server: Server) -> Any:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key=KEY, max_retries=0)


def test_its_transcript_has_everything(server: Server, trained) -> None:
    from docs.openai_client import transcript

    card = read_card(trained.checkpoint(Stage.DPO))
    lines = list(transcript(f"{server.address}/v1", KEY))
    assert lines[0].endswith(f"{card.recipe_name}-dpo, by siqvl")
    said = dict(line.split(": ", 1) for line in lines)
    assert said["n=2, temperature=1.5, seed=7"] == said["the same"]
    assert ", 2)" not in said["max_completion_tokens=2"]
    assert (
        said["max_completion_tokens=2"].endswith("+ 2 tokens")
        or "stop" in (said["max_completion_tokens=2"])
    )
    for name, error in (
        ("model='gpt-9'", "NotFoundError 404"),
        ("frequency_penalty=1", "BadRequestError 400"),
        ("top_k=3", "BadRequestError 400"),
        ("an address", "BadRequestError 400: addresses are not fetched"),
        ("max_tokens=1000000", "BadRequestError 400"),
        ("a wrong key", "AuthenticationError 401"),
    ):
        assert said[name].startswith(error)


def test_streams_are_answers_in_pieces(client: Any) -> None:
    (model,) = client.models.list().data
    asked = [user("what color is the square?")]
    whole = client.chat.completions.create(model=model.id, messages=asked, max_tokens=20)
    stream = client.chat.completions.create(
        model=model.id, messages=asked, max_tokens=20, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == whole.choices[0].message.content
    with client.chat.completions.stream(model=model.id, messages=asked, max_tokens=20) as found:
        assert found.get_final_completion().choices[0].message.content == "".join(pieces)


def test_many_asynchronous_requests(server: Server) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key=KEY) as client:
            (model,) = (await client.models.list()).data

            async def one(number: int) -> str:
                found = await client.chat.completions.create(
                    model=model.id, messages=[user(f"how many? {number % 4}")], max_tokens=8
                )
                return str(found.choices[0].message.content)

            return await asyncio.gather(*(one(number) for number in range(40)))

    answers = asyncio.run(ask())
    assert answers == answers[:4] * 10


def test_its_retries_outlast_a_restart(trained, tmp_path: Path) -> None:
    server = Server(trained.checkpoint(Stage.DPO), tmp_path)
    server.start()
    client = openai.OpenAI(
        base_url=f"{server.address}/v1", api_key="none", max_retries=60, timeout=60
    )
    (model,) = client.models.list().data
    before = client.chat.completions.create(model=model.id, messages=[user("how many?")])
    server.end(signal.SIGKILL)
    answers: list[Any] = []

    def ask() -> None:
        answers.append(client.chat.completions.create(model=model.id, messages=[user("how many?")]))

    asking = threading.Thread(target=ask)
    asking.start()  # while nothing listens
    server.start()
    asking.join(timeout=60)
    assert [after.choices for after in answers] == [before.choices]
    assert server.end() == 0


def test_it_says_where_it_answers_and_what_it_will_not_do(trained) -> None:
    checkpoint = str(trained.checkpoint(Stage.DPO))
    command = [sys.executable, "-m", "siqvl", "serve", checkpoint]
    kept = {name: value for name, value in os.environ.items() if name != "SIQVL_API_KEYS"}

    def refused(*options: str) -> str:
        done = subprocess.run(
            [*command, *options], env=kept, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]

    assert "without any API key: set SIQVL_API_KEYS" in refused("--host", "0.0.0.0")
    assert "`waiting`: Input should be greater" in refused("--waiting", "-1")
    started = subprocess.Popen(
        [*command, "--port", "0", "--name", "mine"], env=kept, stderr=subprocess.PIPE, text=True
    )
    assert started.stderr is not None
    for line in started.stderr:
        if found := re.search(r"mine answers at (http://127\.0\.0\.1:\d+)", line):
            break
    with urllib.request.urlopen(f"{found[1]}/v1/models") as answer:
        assert b'"mine"' in answer.read()
    started.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert started.wait(timeout=30) == 0
    assert time.monotonic() - start < 10
    started.stderr.close()
