"""Greedy answers against `generate` of transformers, alone and in company."""

import pytest
import torch

from siqvl.generation.beginnings import Prompt
from siqvl.generation.decoder import Decoder
from siqvl.generation.loop import end_ids, write


def reference(put, player: str, row: int, new: int) -> list[int]:
    """What `generate` writes for one row, from pixels, its picture processed by transformers."""
    prompt = put.prompts(player)[row]
    ids = torch.tensor([prompt.words[0].input_ids])
    images = {}
    if prompt.pictures:
        at, number = put.questions.places[prompt.pictures[0]]
        picture = put.questions.dataset[at]["images"][number]
        images = put.processor.image_processor(images=[picture], return_tensors="pt")
    written = put.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=new,
        **images,
    )
    return written[0, ids.shape[1] :].tolist()


def greedy(one, prompts, *, max_new_tokens: int, places: int) -> list[list[int]]:
    """What the loop writes from pixels."""

    def encode(names):
        pixels = []
        for name in names:
            at, number = one.questions.places[name]
            pixels.append(one.questions.dataset[at]["images"][number])
        pixels = one.processor.image_processor(images=pixels, return_tensors="pt")
        return one.model.get_image_features(**pixels, return_dict=True).pooler_output

    asked = [Prompt(prompt.words[0].input_ids, prompt.pictures) for prompt in prompts]
    written = write(
        one.model,
        asked,
        encode,
        places=places,
        max_new_tokens=max_new_tokens,
        end_ids=end_ids(one.model),
    )
    found = dict(written)
    return [found[number].ids for number in range(len(asked))]


@pytest.mark.parametrize("player", ["picture", "no_picture"])
def test_a_batch_writes_what_generate_writes_for_each_row(put, player: str) -> None:
    one = put("reasoned")
    prompts = one.prompts(player)
    expected = [
        one.processor.tokenizer.decode(reference(one, player, row, 24), skip_special_tokens=True)
        for row in range(len(prompts))
    ]
    assert [out.generation for out in one.answers(prompts)] == [text.strip() for text in expected]
    lengths = {len(prompt) for prompt in prompts}
    assert len(lengths) > 1, "all rows are of one length: nothing was padded"


@pytest.mark.parametrize("places", [1, 3, 8, 100])
def test_a_place_that_is_free_is_taken_and_no_row_changes(put, monkeypatch, places: int) -> None:
    """Ends come at different steps when a token that some rows write early is made an end token."""
    one = put("reasoned")
    prompts = one.prompts("picture")
    free = [reference(one, "picture", row, 24) for row in range(len(prompts))]
    written_at = {
        token: {row.index(token) for row in free if token in row}
        for token in {token for row in free for token in row}
    }
    end = max(written_at, key=lambda token: len(written_at[token]))
    ends = [*one.model.generation_config.eos_token_id, end]
    monkeypatch.setattr(one.model.generation_config, "eos_token_id", ends)
    expected = [row[: row.index(end) + 1] if end in row else row for row in free]
    assert len({len(row) for row in expected}) > 2
    sizes = []
    step = Decoder.step

    def counted(decoder: Decoder, tokens: torch.Tensor, longest: int) -> torch.Tensor:
        sizes.append(len(tokens))
        return step(decoder, tokens, longest)

    monkeypatch.setattr(Decoder, "step", counted)
    written = greedy(one, prompts, max_new_tokens=24, places=places)
    assert written == expected
    assert max(sizes) <= places
    steps = sum(len(row) - 1 for row in expected)
    assert sum(sizes) == steps  # no place is computed for nothing


def test_suppressed_tokens_are_not_written(put, monkeypatch) -> None:
    one = put("asked")
    first = reference(one, "picture", 0, 1)[0]
    suppressed = [*one.model.generation_config.suppress_tokens, first]
    monkeypatch.setattr(one.model.generation_config, "suppress_tokens", suppressed)
    prompts = one.prompts("picture")[:1]
    (written,) = greedy(one, prompts, max_new_tokens=5, places=1)
    assert first not in written
    assert written == reference(one, "picture", 0, 5)


@pytest.mark.parametrize("size", [1, 4, 12])
def test_the_batch_size_changes_no_answer(put, size: int) -> None:
    one = put("reasoned")
    prompts = one.prompts("picture")
    together = one.answers(prompts)
    apart = [
        output
        for start in range(0, len(prompts), size)
        for output in one.answers(prompts[start : start + size])
    ]
    assert apart == together


def test_options_stand_in_the_prompt_by_letter(put) -> None:
    one = put("asked", letters=True)
    row = one.questions.rows[0]
    text = one.processor.tokenizer.decode(one.prompts("picture")[0].words[0].input_ids)
    listed = "\n".join(
        f"{letter}. {o}" for letter, o in zip("ABCDEFGHIJKLM", row["choices"], strict=False)
    )
    assert f"{row['question']}\n{listed}\n" in text
    plain = one.processor.tokenizer.decode(put("asked").prompts("picture")[0].words[0].input_ids)
    assert "A. " not in plain
