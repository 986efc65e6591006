"""Answers of the server, against `generate` and the forward pass of transformers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from PIL import Image

from siqvl.data.schema import REASONING_PROMPT, message
from siqvl.generation.completions import prompt_item
from siqvl.serving.server.answered.token_bytes import token_bytes
from tests.serving.server.running_server import (
    MODEL,
    Running,
    assistant,
    body,
    data_uri,
    events,
    running,
    until,
    user,
)

BLUE, RED = Image.new("RGB", (40, 30), "blue"), Image.new("RGB", (30, 40), "red")
RED.paste("white", (5, 5, 20, 20))
QUESTION = "what color is the square?" + REASONING_PROMPT  # for more than a word
ONE_PICTURE = [user(QUESTION, BLUE)]
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, str]], list[Image.Image]]] = {
    # what is sent; the same as a row of training says it
    "text": ([user("Is it red?")], [message("user", "Is it red?")], []),
    "a picture": (ONE_PICTURE, [message("user", QUESTION)], [BLUE]),
    "two pictures": (
        [user("which one is red?", RED, BLUE)],
        [message("user", "which one is red?")],
        [RED, BLUE],
    ),
    "several turns": (
        [
            {"role": "developer", "content": "Be brief."},
            user("what is it?"),
            assistant("A square."),
            user("and this?", RED),
        ],
        [
            message("system", "Be brief."),
            message("user", "what is it?"),
            message("assistant", "A square."),
            message("user", "<image>and this?"),
        ],
        [RED],
    ),
    "a picture after text": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Is this"},
                    {"type": "image_url", "image_url": {"url": data_uri(RED), "detail": "low"}},
                    {"type": "text", "text": "red?"},
                ],
            }
        ],
        [message("user", "Is this<image>red?")],
        [RED],
    ),
}


def inputs(small: Any, prompt: list[dict[str, str]], pictures: list[Image.Image]) -> dict[str, Any]:
    _, processor = small
    item = prompt_item({"id": "row", "prompt": prompt, "images": pictures}, processor)
    ids = torch.tensor([item["input_ids"]])
    found: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if pictures:
        found |= processor.image_processor(images=pictures, return_tensors="pt")
    return found


def expected(small: Any, found: dict[str, Any], tokens: int) -> tuple[str, list[int]]:
    model, processor = small
    with torch.no_grad():
        out = model.generate(**found, max_new_tokens=tokens, do_sample=False)
    new = out[0, found["input_ids"].shape[1] :].tolist()
    return processor.batch_decode([new], skip_special_tokens=True)[0].strip(), new


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_answers_are_those_of_transformers(small, served: Running, name: str) -> None:
    sent, prompt, pictures = CONVERSATIONS[name]
    found = inputs(small, prompt, pictures)
    text, new = expected(small, found, 12)
    answer = served.chat(*sent).json()
    ended = new[-1] in served.service.ends
    assert answer["object"] == "chat.completion"
    assert answer["model"] == MODEL
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop" if ended else "length",
        }
    ]
    count = found["input_ids"].shape[1]
    assert answer["usage"] == {
        "prompt_tokens": count,
        "completion_tokens": len(new),
        "total_tokens": count + len(new),
    }


def test_a_stream_is_the_same_answer(small, served: Running) -> None:
    whole = served.chat(*ONE_PICTURE, max_tokens=30).json()
    options = {"include_usage": True, "include_obfuscation": False}
    *chunks, last = events(
        served.chat(*ONE_PICTURE, max_completion_tokens=30, stream=True, stream_options=options)
    )
    assert last == "[DONE]"
    counted = chunks.pop()
    assert (counted["choices"], counted["usage"]) == ([], whole["usage"])
    assert {one["object"] for one in chunks} == {"chat.completion.chunk"}
    assert {one["usage"] for one in chunks} == {None}
    assert len({(one["id"], one["created"], one["model"]) for one in [*chunks, counted]}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    told = [one["choices"][0] for one in chunks]
    text = "".join(one["delta"].get("content", "") for one in told)
    assert text == whole["choices"][0]["message"]["content"]
    assert [one["finish_reason"] for one in told[:-1]] == [None] * (len(told) - 1)
    assert told[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    plain = events(served.chat(*ONE_PICTURE, max_completion_tokens=30, stream=True))
    assert all("usage" not in one for one in plain[:-1])


def test_log_probabilities_are_those_of_the_forward_pass(small, served: Running) -> None:
    model, processor = small
    sent, prompt, pictures = CONVERSATIONS["two pictures"]
    found = inputs(small, prompt, pictures)
    _, new = expected(small, found, 9)
    answer = served.chat(*sent, max_tokens=9, logprobs=True, top_logprobs=3).json()
    content = answer["choices"][0]["logprobs"]["content"]
    shown = [one for one in new if one not in served.service.ends]
    assert [bytes(one["bytes"]) for one in content] == [
        token_bytes(one, processor) for one in shown
    ]
    ids = torch.cat([found["input_ids"], torch.tensor([new])], dim=1)
    whole = found | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        logits = model(**whole).logits[0, -len(new) - 1 : -1].float()
    logits[:, model.generation_config.suppress_tokens or []] = float("-inf")
    reference = logits.log_softmax(-1)
    for place, one in enumerate(content):
        assert one["logprob"] == pytest.approx(float(reference[place, shown[place]]), abs=1e-4)
        best = reference[place].topk(3)
        assert [top["logprob"] for top in one["top_logprobs"]] == pytest.approx(
            best.values.tolist(), abs=1e-4
        )
    # in a stream each token is told once
    pieces = events(served.chat(*sent, max_tokens=9, logprobs=True, top_logprobs=3, stream=True))[
        :-1
    ]
    told = [one["choices"][0]["logprobs"] for one in pieces[1:]]
    assert [one for part in told for one in part["content"]] == content
    bare = served.chat(*sent, max_tokens=9, logprobs=True).json()
    assert [one["top_logprobs"] for one in bare["choices"][0]["logprobs"]["content"]] == [
        [] for _ in content
    ]


def test_a_stop_ends_the_text_before_it(served: Running) -> None:
    whole = served.chat(*ONE_PICTURE, max_tokens=40).json()["choices"][0]["message"]["content"]
    assert len(whole) > 8
    stop = whole[5:8]
    for one in (stop, ["never said", stop]):
        answer = served.chat(*ONE_PICTURE, max_tokens=40, stop=one).json()["choices"][0]
        assert answer["message"]["content"] == whole[: whole.index(stop)].rstrip()
        assert answer["finish_reason"] == "stop"


def test_choices_are_drawn_by_the_seed(served: Running) -> None:
    def drawn(**values: Any) -> list[str]:
        answer = served.chat(*ONE_PICTURE, max_tokens=12, temperature=1.5, **values).json()
        assert [one["index"] for one in answer["choices"]] == list(range(values.get("n", 1)))
        return [one["message"]["content"] for one in answer["choices"]]

    three = drawn(seed=7, n=3)
    assert len(set(three)) > 1
    assert drawn(seed=7, n=3) == three
    assert drawn(seed=7) == three[:1]
    assert len({drawn(seed=seed)[0] for seed in range(8)}) > 2
    assert len({drawn()[0] for _ in range(4)}) > 1  # without a seed, one of its own
    greedy = served.chat(*ONE_PICTURE, max_tokens=12).json()["choices"][0]["message"]["content"]
    assert drawn(seed=7, top_p=1e-6) == [greedy]
    many = served.chat(*ONE_PICTURE, max_tokens=4, n=2).json()
    assert many["usage"]["completion_tokens"] == 2 * (many["usage"]["completion_tokens"] // 2)
    streamed = events(
        served.chat(*ONE_PICTURE, max_tokens=12, temperature=1.5, seed=7, n=3, stream=True)
    )[:-1]
    texts = ["", "", ""]
    for one in streamed:
        for choice in one["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == three


def test_many_at_once_answer_as_one_alone(small, served: Running) -> None:
    """More than there are places, of different kinds and lengths."""
    with running(*small, places=3, waiting=64) as other:
        asked = [
            (sent, 3 + 4 * number)
            for number, (sent, _, _) in enumerate([*CONVERSATIONS.values()] * 4)
        ]
        alone = [served.chat(*sent, max_tokens=limit).json()["choices"][0] for sent, limit in asked]
        found: dict[int, Any] = {}

        def ask(number: int) -> None:
            sent, limit = asked[number]
            found[number] = other.chat(*sent, max_tokens=limit).json()["choices"][0]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(asked))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[number] for number in range(len(asked))] == alone
        until(lambda: (other.service.engine.running, other.service.door.inside) == (0, 0))


def test_what_says_nothing_of_the_answer_is_taken(served: Running) -> None:
    plain = served.chat(*ONE_PICTURE).json()["choices"]
    idle = {
        "user": "me",
        "metadata": {"run": "1"},
        "service_tier": "auto",
        "parallel_tool_calls": True,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "tools": [],
        "stop": None,
        "seed": None,
        "logprobs": False,
        "store": False,
        "top_p": 1,
        "temperature": 0,
    }
    assert served.chat(*ONE_PICTURE, **idle).json()["choices"] == plain


def test_the_object_has_what_openai_says(served: Running) -> None:
    answer = served.client.post("/v1/chat/completions", json=body(user("hi")))
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.json()["id"].startswith("chatcmpl-")
