"""Letters by likelihood, against the logits of rows that stand alone, in float64."""

import copy

import pytest
import torch

from siqvl.evaluation.letters import letters


def by_hand(put, player: str, row: int, tokens: list[list[int]]) -> list[float]:
    """log p of each option's letter after the bare prompt, from pixels, token after token."""
    prompt = put.prompts(player)[row]
    images = {}
    if prompt.pictures:
        at, number = put.questions.places[prompt.pictures[0]]
        picture = put.questions.dataset[at]["images"][number]
        pixels = put.processor.image_processor(images=[picture], return_tensors="pt")
        images = {"pixel_values": pixels["pixel_values"].double()}
    found = []
    model = copy.deepcopy(put.model).double()
    for letter in tokens:
        ids, total = list(prompt.words[0].input_ids), 0.0
        for token in letter:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), **images).logits[0, -1]
            total += torch.log_softmax(logits, -1)[token].item()
            ids.append(token)
        found.append(total)
    return found


@pytest.mark.parametrize("player", ["picture", "no_picture", "other_picture"])
def test_log_probabilities_are_those_of_the_next_token(put, player: str) -> None:
    one = put("letters")
    prompts = one.prompts(player)
    tokens = [
        one.processor.tokenizer(letter, add_special_tokens=False)["input_ids"]
        for letter in letters(12)
    ]
    found = one.method.log_probabilities(prompts, one.pictures)
    for row in (0, 5, 11):
        options = len(one.questions.rows[row]["choices"])
        expected = by_hand(one, player, row, tokens[:options])
        assert found[row] == pytest.approx(expected, abs=1e-4)
        (output,) = one.answers([prompts[row]])
        assert output.generation == letters(options)[expected.index(max(expected))]
    assert len({len(row) for row in found}) > 1, "all rows have equally many options"


def test_a_letter_of_several_tokens_counts_all_of_them(put, monkeypatch) -> None:
    one = put("letters")
    two = {letter: [40 + n, 90 + n] for n, letter in enumerate(letters(12))}
    monkeypatch.setattr(type(one.method), "_tokens", lambda self, letter: two[letter])
    prompts = one.prompts("picture")[:2]
    found = one.method.log_probabilities(prompts, one.pictures)
    for row in (0, 1):
        options = len(one.questions.rows[row]["choices"])
        expected = by_hand(one, "picture", row, list(two.values())[:options])
        assert found[row] == pytest.approx(expected, abs=1e-4)
