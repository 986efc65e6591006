"""Margins of preference pairs, against logits in float64 and against TRL's own sums."""

import copy

import pytest
import torch
from trl.trainer.utils import selective_log_softmax

from siqvl.data.collate import SFTCollator
from siqvl.data.encode import encode_preference
from siqvl.evaluation.score_answers import preference_score


def rows_of(put, player: str) -> list[dict]:
    """Pairs as they are trained on, but for what the player is shown."""
    pictures = [prompt.pictures for prompt in put.prompts(player)]
    found = []
    for row, hashes in zip(put.questions.dataset, pictures, strict=True):
        places = [put.questions.places[one] for one in hashes]
        images = [put.questions.dataset[at]["images"][number] for at, number in places]
        found.append(row | {"images": images})
    return found


def collated(put, rows: list[dict]) -> dict[str, torch.Tensor]:
    """As TRL's DPOTrainer takes them: all chosen sides, then all rejected ones."""
    pairs = [(row, encode_preference(row, put.processor)) for row in rows]
    return SFTCollator(put.processor)(
        [
            {
                "input_ids": pair[side].input_ids,
                "labels": pair[side].labels,
                "images": row["images"],
            }
            for side in (0, 1)
            for row, pair in pairs
        ]
    )


@pytest.mark.parametrize("player", ["picture", "no_picture", "other_picture"])
def test_margins_are_sums_over_the_completion_and_its_end_token(put, player: str) -> None:
    one = put("pairs")
    model = copy.deepcopy(one.model).double()
    margins = [out.margin for out in one.answers(one.prompts(player))]
    for margin, row in zip(margins, rows_of(one, player), strict=True):
        sums = []
        for side in encode_preference(row, one.processor):
            start = next(n for n, label in enumerate(side.labels) if label >= 0)
            assert one.processor.tokenizer.decode(side.input_ids[-1]) == "<|im_end|>"
            images = {}
            if row["images"]:
                images = one.processor.image_processor(images=row["images"], return_tensors="pt")
                images = {"pixel_values": images["pixel_values"].double()}
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([side.input_ids]), **images).logits[0]
            log_p = logits.log_softmax(-1)
            sums.append(
                sum(log_p[n - 1, side.input_ids[n]].item() for n in range(start, len(side)))
            )
        assert margin == pytest.approx(sums[0] - sums[1], abs=1e-3)  # of some hundred nats


def test_margins_are_those_of_trl(put) -> None:
    """The sums of DPOTrainer, computed with its own log-softmax (TRL 1.16, `_compute_loss`)."""
    one = put("pairs")
    batch = collated(one, rows_of(one, "picture"))
    mask = batch.pop("labels")[:, 1:] != -100
    with torch.no_grad():
        logits = one.model(**batch).logits[:, :-1]
    each = selective_log_softmax(logits, batch["input_ids"][:, 1:])
    chosen, rejected = (each * mask).sum(1).chunk(2)
    margins = [out.margin for out in one.answers(one.prompts("picture"))]
    assert margins == pytest.approx((chosen - rejected).tolist(), abs=1e-4)


def test_a_swapped_pair_has_the_opposite_margin_and_score(put) -> None:
    one = put("pairs")
    margins = [out.margin for out in one.answers(one.prompts("picture"))]
    for row in one.questions.rows:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    swapped = [
        type(prompt)(one.method.words(row, 1), prompt.pictures)
        for row, prompt in zip(one.questions.rows, one.prompts("picture"), strict=True)
    ]
    other = [out.margin for out in one.answers(swapped)]
    assert other == pytest.approx([-margin for margin in margins], abs=1e-4)
    assert [preference_score(m) + preference_score(-m) for m in margins] == [1.0] * len(margins)


@pytest.mark.parametrize(("margin", "score"), [(0.1, 1.0), (0.0, 0.5), (-0.0, 0.5), (-3.0, 0.0)])
def test_a_tie_is_half_right(margin: float, score: float) -> None:
    assert preference_score(margin) == score
