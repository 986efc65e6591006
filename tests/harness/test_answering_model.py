"""Answers and likelihoods of a harness, against transformers' own `generate` and logits."""

import pytest
import torch
from PIL import Image

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.generation.completions import complete, prompt_item
from siqvl.harness.answering_model import AnsweringModel, Question
from siqvl.harness.asked_rows import asked_row
from siqvl.harness.decoding import Decoding
from siqvl.harness.model_args import ModelArgs
from siqvl.recipe import Source

WORDS = Decoding(12)


@pytest.fixture(scope="module")
def rows():
    """One picture, several, none."""
    source = Source(kind="shapes", subsets=["vqa", "reasoning"], max_samples=5)
    shapes = list(sources.rows(source, RowKind.EVALUATION, 0))
    one, other = (row["images"][0] for row in shapes[:2])
    return [
        *(asked_row(row["id"], row["question"], row["images"]) for row in shapes),
        asked_row("two", "Is <image> like <image>?", [one, other]),
        asked_row("none", "What colors are there?", []),
    ]


def question(row, decoding=WORDS, name=None, asked=None):
    def make():
        if asked is not None:
            asked.append(row["id"])
        return row

    return Question(name or row["id"], make, len(row["prompt"][0]["content"]), decoding)


def by_transformers(loaded, row, tokens=12):
    model, processor = loaded
    ids = torch.tensor([prompt_item(row, processor)["input_ids"]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if row["images"]:
        pixels = processor.image_processor(images=row["images"], return_tensors="pt")
        inputs["pixel_values"] = pixels["pixel_values"]
    written = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return processor.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_answers_are_those_of_transformers_in_the_order_of_the_questions(loaded, rows, batch_size):
    told = []
    answering = AnsweringModel(*loaded, batch_size=batch_size)
    found = answering.write([question(row) for row in rows], told.append)
    assert [one.text for one in found] == [by_transformers(loaded, row) for row in rows]
    assert sum(told) == len(rows)
    assert max(told) == min(batch_size, len(rows))


def test_questions_that_are_written_alike_share_batches(loaded, rows):
    """And no row, with its pictures, is made before its batch."""
    asked, told = [], []
    decodings = [WORDS if number % 2 else Decoding(4) for number in range(len(rows))]
    questions = [
        question(row, decoding, asked=asked) for row, decoding in zip(rows, decodings, strict=True)
    ]

    def progress(count):
        told.append(count)
        assert len(asked) == sum(told)

    found = AnsweringModel(*loaded, batch_size=4).write(questions, progress)
    assert sorted(told) == [3, 4]
    for row, decoding, one in zip(rows, decodings, found, strict=True):
        assert one.text == by_transformers(loaded, row, decoding.max_new_tokens)


def test_until_ends_an_answer(loaded, rows):
    whole = by_transformers(loaded, rows[0])
    assert len(whole) > 3
    decoding = Decoding(12, 0.0, (whole[3],))
    (found,) = AnsweringModel(*loaded).write([question(rows[0], decoding)])
    assert found == (whole[: whole.index(whole[3])].strip(), whole)


def test_what_is_drawn_follows_from_seed_and_name_alone(loaded, rows):
    drawn = Decoding(8, 3.0)
    questions = [question(row, drawn) for row in rows]
    found = AnsweringModel(*loaded, batch_size=4).write(questions)
    assert AnsweringModel(*loaded, batch_size=2).write(questions) == found
    assert AnsweringModel(*loaded, batch_size=2).write(questions[::-1]) == found[::-1]
    assert AnsweringModel(*loaded, seed=1).write(questions) != found
    # one question asked again, as `repeats` of a task does
    again = AnsweringModel(*loaded, batch_size=4).write([questions[0]] * 4)
    assert again[0] == found[0]
    assert len({one.text for one in again}) > 1


def test_the_models_window_ends_an_answer_and_refuses_a_question(loaded, rows, monkeypatch):
    taken = len(prompt_item(rows[0], loaded[1])["input_ids"])
    config = loaded[0].config.text_config
    monkeypatch.setattr(config, "max_position_embeddings", taken + 3)
    (found,) = AnsweringModel(*loaded).write([question(rows[0], Decoding(100))])
    (three,) = complete(*loaded, [prompt_item(rows[0], loaded[1])], max_new_tokens=3)
    assert found.text == three.text
    monkeypatch.setattr(config, "max_position_embeddings", taken)
    with pytest.raises(UserError, match=rf"^{rows[0]['id']} takes {taken + 1} tokens") as error:
        AnsweringModel(*loaded).write([question(rows[0])])
    assert f"the model reads {taken}" in error.value.message


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_likelihoods_are_those_of_the_models_logits(loaded, rows, batch_size):
    model, processor = loaded
    answering = AnsweringModel(*loaded, batch_size=batch_size)
    for row in (rows[0], *rows[-2:]):
        written = by_transformers(loaded, row, 3)
        options = ["red", " two blue squares", written, "A"]
        found = answering.likely(row, options)
        asked = prompt_item(row, processor)["input_ids"]
        images = {}
        if row["images"]:
            pixels = processor.image_processor(images=row["images"], return_tensors="pt")
            images = {"pixel_values": pixels["pixel_values"]}
        for option, one in zip(options, found, strict=True):
            ids = processor.tokenizer(option.strip(), add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*asked, *ids]]), **images).logits[0]
            scores = logits[len(asked) - 1 : -1].double().log_softmax(-1)
            expected = sum(scores[place, token].item() for place, token in enumerate(ids))
            assert one.log_probability == pytest.approx(expected, abs=1e-4)
            assert one.greedy == (scores.argmax(-1).tolist() == ids)
        assert {one.greedy for one in found} == {True, False}


def test_an_empty_option_is_refused(loaded, rows):
    with pytest.raises(UserError, match="has an empty option"):
        AnsweringModel(*loaded).likely(rows[0], ["a", " "])


def test_a_checkpoint_is_loaded_and_what_is_none_is_one_sentence(checkpoint, loaded, tmp_path):
    args = {"attention": "eager", "max_new_tokens": 4}
    answering = AnsweringModel.load(ModelArgs(pretrained=str(checkpoint), device="cpu", **args))
    assert answering.device.type == "cpu"
    row = asked_row("q", "what?", [Image.new("RGB", (8, 8), "red")])
    assert answering.write([question(row)])[0].text == by_transformers(loaded, row)
    for changes in ({"pretrained": tmp_path / "no"}, {"device": "abacus"}):
        (key,) = changes
        with pytest.raises(UserError, match=rf"^model_args: `{key}`"):
            AnsweringModel.load(ModelArgs(**{"pretrained": checkpoint, **changes}))
    with pytest.raises(UserError, match=r"siqvl\.json"):
        AnsweringModel.load(ModelArgs(pretrained=tmp_path))
