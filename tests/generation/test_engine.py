"""Requests that come at any time, against `generate` of transformers one by one."""

import threading
import time
from queue import SimpleQueue

import pytest
import torch
from PIL import Image

from siqvl.data.schema import message
from siqvl.errors import UserError
from siqvl.generation.completions import prompt_item
from siqvl.generation.engine import Busy, Engine
from siqvl.generation.request import Sampling

QUESTIONS = [
    "what color is the square?",
    "how many shapes are there?",
    "what shape is in the top left?\nThink step by step, then answer after 'Answer:'.",
]


def picture(number: int) -> Image.Image:
    found = Image.new("RGB", (64, 64), "white")
    found.paste(["red", "blue", "green"][number % 3], (8, 8 + number, 30, 40))
    return found


def items(processor) -> list[dict]:
    """Prompts of one picture, of two, and of none."""
    found = []
    for number, question in enumerate(QUESTIONS * 4):
        pictures = [[picture(number)], [], [picture(1), picture(number)]][number % 3]
        row = {"id": str(number), "prompt": [message("user", question)], "images": pictures}
        found.append(prompt_item(row, processor))
    return found


def by_transformers(model, processor, item: dict, tokens: int) -> tuple[str, list[int]]:
    pixels = {}
    if item["images"]:
        pixels = processor.image_processor(images=item["images"], return_tensors="pt")
    ids = torch.tensor([item["input_ids"]])
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **pixels,
            max_new_tokens=tokens,
            do_sample=False,
        )
    new = out[0, ids.shape[1] :]
    return processor.batch_decode([new], skip_special_tokens=True)[0].strip(), new.tolist()


@pytest.fixture
def engine(asked):
    with Engine(*asked, places=4, waiting=64, max_length=512) as found:
        yield found


def collected(pieces: SimpleQueue, wait: float = 60.0) -> list:
    found = []
    while not found or found[-1].finish is None:
        found.append(pieces.get(timeout=wait))
    return found


def test_answers_are_those_of_transformers(asked, engine) -> None:
    model, processor = asked
    asked_for = items(processor)
    queues = [SimpleQueue() for _ in asked_for]
    limits = [3 + 5 * (number % 9) for number in range(len(asked_for))]
    for item, limit, queue in zip(asked_for, limits, queues, strict=True):
        engine.submit(item, Sampling(limit), queue.put)
    for item, limit, queue in zip(asked_for, limits, queues, strict=True):
        pieces = collected(queue)
        text, tokens = by_transformers(model, processor, item, limit)
        assert "".join(piece.text for piece in pieces) == text
        assert pieces[-1].written == len(tokens)
        ended = tokens[-1] in model.generation_config.eos_token_id
        assert pieces[-1].finish == ("stop" if ended else "length")
    assert engine.running == engine.queued == 0


def test_text_comes_while_it_is_written(asked, engine) -> None:
    item = items(asked[1])[2]
    pieces = list(engine.stream(item, Sampling(40)))
    assert sum(bool(piece.text) for piece in pieces) > 3
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)


def test_logprobs_are_the_models(asked, engine) -> None:
    model, processor = asked
    item = items(processor)[1]
    pieces = list(engine.stream(item, Sampling(8, top_logprobs=2)))
    tokens = [token for piece in pieces for token in piece.tokens]
    assert len(tokens) == pieces[-1].written
    ids = torch.tensor([[*item["input_ids"], *(one.id for one in tokens)]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(item["input_ids"]) - 1 : -1].float()
    logits[:, model.generation_config.suppress_tokens] = float("-inf")
    expected = logits.log_softmax(-1)
    for place, one in enumerate(tokens):
        assert one.logprob == pytest.approx(float(expected[place, one.id]), abs=1e-3)
        assert one.top[0] == (one.id, pytest.approx(one.logprob))


def test_a_stop_ends_the_completion_and_frees_its_place(asked, engine) -> None:
    item = items(asked[1])[2]
    whole = "".join(piece.text for piece in engine.stream(item, Sampling(40)))
    stop = whole[len(whole) // 2 :][:4]
    pieces = list(engine.stream(item, Sampling(40, stop=(stop,))))
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)].strip()
    assert pieces[-1].finish == "stop"
    assert engine.running == 0


def test_who_stops_listening_frees_the_place(asked, engine) -> None:
    item = items(asked[1])[2]
    written = engine.stream(item, Sampling(400, temperature=50.0, seed=1))
    next(written)
    written.close()
    wait_until(lambda: engine.running == 0)


def wait_until(holds, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_more_than_may_wait_are_refused_and_the_others_are_answered(asked) -> None:
    item = items(asked[1])[0]
    queue: SimpleQueue = SimpleQueue()
    taken = refused = 0
    with Engine(*asked, places=2, waiting=3) as engine:
        for _ in range(200):
            try:
                engine.submit(item, Sampling(20), queue.put)
                taken += 1
            except Busy:
                refused += 1
        for _ in range(taken):
            collected(queue)
    assert refused
    assert taken >= 5


def test_who_left_while_waiting_keeps_nobody_out(asked) -> None:
    item = items(asked[1])[0]
    hold, held = threading.Event(), threading.Event()

    def holding(piece) -> None:
        held.set()
        hold.wait(60)

    with Engine(*asked, places=1, waiting=2) as engine:
        engine.submit(item, Sampling(3), holding)
        assert held.wait(60)
        left = [engine.submit(item, Sampling(3), print) for _ in range(2)]
        with pytest.raises(Busy):
            engine.submit(item, Sampling(3), print)
        left[0].cancel()
        taken: SimpleQueue = SimpleQueue()
        engine.submit(item, Sampling(3), taken.put)
        hold.set()
        assert collected(taken)[-1].finish in ("stop", "length")


def test_what_cannot_be_read_is_refused_before_the_model(asked, engine) -> None:
    item = items(asked[1])[0]
    with pytest.raises(UserError, match="more than the 512"):
        engine.submit(item, Sampling(500), print)
    with pytest.raises(UserError, match="placeholders"):
        engine.submit({**item, "images": []}, Sampling(5), print)


def test_closing_tells_those_who_wait(asked) -> None:
    item = items(asked[1])[2]
    queues = [SimpleQueue() for _ in range(4)]
    engine = Engine(*asked, places=1, waiting=8)
    for seed, queue in enumerate(queues):
        engine.submit(item, Sampling(300, temperature=50.0, seed=seed), queue.put)
    engine.close()
    assert "cancelled" in [collected(queue)[-1].finish for queue in queues]
    assert not engine.alive
    with pytest.raises(Busy, match="stopping"):
        engine.submit(item, Sampling(3), print)


def test_a_failing_pass_ends_what_was_in_it_and_nothing_else(asked, engine, monkeypatch) -> None:
    item = items(asked[1])[0]
    first = list(engine.stream(item, Sampling(20)))
    step = type(engine._writing).step
    failed = threading.Event()

    def failing(self):
        if not failed.is_set():
            failed.set()
            raise RuntimeError("out of memory")
        return step(self)

    monkeypatch.setattr(type(engine._writing), "step", failing)
    assert list(engine.stream(item, Sampling(20)))[-1].finish == "error"
    assert list(engine.stream(item, Sampling(20))) == first


def test_a_listener_that_fails_disturbs_nobody(asked, engine) -> None:
    item = items(asked[1])[0]
    good: SimpleQueue = SimpleQueue()

    def bad(piece):
        raise BrokenPipeError

    engine.submit(item, Sampling(20), bad)
    engine.submit(item, Sampling(20), good.put)
    assert collected(good)[-1].finish in ("stop", "length")
    wait_until(lambda: engine.running == 0)
