"""What OpenAI's own Python client gets from `siqvl serve`, printed as a transcript.

python -m docs.openai_client CHECKPOINT
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
from PIL import Image, ImageDraw

from benchmarks.serving.server import Server

KEY = "a-key-for-the-transcript"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.write_text(KEY)
        server = Server(Path(sys.argv[1]), Path(folder), "--api-keys-file", str(keys))
        server.start()
        try:
            for line in transcript(f"{server.address}/v1", KEY):
                print(line, flush=True)
        finally:
            print(f"\nSIGTERM: exit code {server.end()}")


def transcript(address: str, key: str) -> Iterator[str]:
    """Asks a server for everything that it offers, and tells what it says."""
    client = openai.OpenAI(base_url=address, api_key=key, max_retries=0)
    (model,) = client.models.list().data
    yield f"openai {openai.__version__}\nmodels.list: {model.id}, by {model.owned_by}"
    model = client.models.retrieve(model.id)
    yield from _answers(client, model.id)
    yield from _streamed(client, model.id)
    yield from _refused(client, model.id, address)


def _answers(client: openai.OpenAI, model: str) -> Iterator[str]:
    red, blue = picture("red", "square"), picture("blue", "circle")
    color = [shown("what color is the square?", red)]
    several = [
        {"role": "system", "content": "Answer in one word."},
        shown("what color is the square?", red),
        {"role": "assistant", "content": "red"},
        shown("what color is the circle?", blue),
    ]
    for name, messages, values in (
        ("one picture", color, {}),
        ("two pictures", [shown("what shape is in the second picture?", red, blue)], {}),
        ("several turns", several, {}),
        ("text alone", [{"role": "user", "content": "what color is the sky?"}], {}),
        ("max_completion_tokens=2", color, {"max_completion_tokens": 2}),
        ("stop=['e']", color, {"stop": ["e"]}),
        ("n=2, temperature=1.5, seed=7", color, {"n": 2, "temperature": 1.5, "seed": 7}),
        ("the same", color, {"n": 2, "temperature": 1.5, "seed": 7}),
        ("top_p=0.1, temperature=1.5", color, {"top_p": 0.1, "temperature": 1.5, "seed": 1}),
    ):
        found = client.chat.completions.create(model=model, messages=messages, **values)
        said = [(one.message.content, one.finish_reason) for one in found.choices]
        assert found.usage is not None
        yield (
            f"{name}: {said}, {found.usage.prompt_tokens} + {found.usage.completion_tokens} tokens"
        )
    found = client.chat.completions.create(
        model=model, messages=color, logprobs=True, top_logprobs=2, max_tokens=3
    )
    for token in found.choices[0].logprobs.content:
        others = [(one.token, round(one.logprob, 3)) for one in token.top_logprobs]
        yield f"logprobs: {token.token!r} {token.bytes} {token.logprob:.3f}, of {others}"


def _streamed(client: openai.OpenAI, model: str) -> Iterator[str]:
    asked = [shown("what color is the square?", picture("green", "square"))]
    stream = client.chat.completions.create(
        model=model, messages=asked, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        if chunk.choices:
            one = chunk.choices[0]
            yield f"stream: {one.delta.content!r} {one.finish_reason or ''}".rstrip()
        else:
            yield f"stream: usage {chunk.usage.total_tokens} tokens"


def _refused(client: openai.OpenAI, model: str, address: str) -> Iterator[str]:
    asked: list[Any] = [{"role": "user", "content": "hi"}]
    web = [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}]
    for name, values in (
        ("model='gpt-9'", {"model": "gpt-9"}),
        ("frequency_penalty=1", {"frequency_penalty": 1}),
        ("top_k=3", {"extra_body": {"top_k": 3}}),
        ("an address", {"messages": [{"role": "user", "content": web}]}),
        ("max_tokens=1000000", {"max_tokens": 1_000_000}),
    ):
        try:
            client.chat.completions.create(**({"model": model, "messages": asked} | values))
        except openai.APIStatusError as error:
            yield f"{name}: {type(error).__name__} {error.status_code}: {error.body['message']}"
    try:
        openai.OpenAI(base_url=address, api_key="wrong", max_retries=0).models.list()
    except openai.AuthenticationError as error:
        yield f"a wrong key: {type(error).__name__} {error.status_code}: {error.body['message']}"


def shown(text: str, *pictures: str) -> Any:
    """What a user asks about pictures, given as data URIs."""
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": one}} for one in pictures]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def picture(color: str, shape: str) -> str:
    """A shape on white, as a data URI."""
    made = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(made)
    (draw.ellipse if shape == "circle" else draw.rectangle)((16, 16, 47, 47), fill=color)
    stream = io.BytesIO()
    made.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


if __name__ == "__main__":
    main()
