"""Packed and padded batches of the same rows teach the same; packed samples stay apart."""

from itertools import pairwise

import pytest
import torch

from siqvl.data.collate import PackedCollator, SFTCollator
from siqvl.data.encode import encode_sft
from siqvl.data.packing import best_fit
from siqvl.data.schema import sft_row
from tests.training.made_pairs import picture, random_model

ATTENTIONS = ["sdpa", "eager"]
WORDS = ("red", "a blue circle and a red square", "2", "yes", "no", "three")


def item(
    processor,
    number: int,
    images: int,
    *,
    question: str = "What color is the circle?",
    seed: int = 0,
):
    pictures = [picture(seed + 10 * number + image) for image in range(images)]
    row = sft_row(f"made/{number}", pictures, question, WORDS[number % 6], source="made")
    one = encode_sft(row, processor)
    return {"input_ids": one.input_ids, "labels": one.labels, "images": pictures}


def mixed(processor, first: int) -> list[dict]:
    """Text alone, one picture and several, of different lengths."""
    return [
        item(
            processor,
            first + number,
            images,
            question="What color is the circle? " * (1 + number % 3),
        )
        for number, images in enumerate([1, 0, 2, 1, 0, 3])
    ]


def learn(model, batches: list[list[dict]], optimizer) -> list[tuple[float, list[torch.Tensor]]]:
    """Loss, and gradients clipped to norm 1 together, of steps over batches with a common count.

    By the head that training uses. transformers' own loss rounds logits to float32 whatever the
    model's precision, so that a difference of 1e-14 in weights, which only AdamW makes, now and
    then moves a logit to the next float32, and with it gradients by up to 5e-9.
    """
    steps = []
    for micros in batches:
        count = sum(int((batch["labels"] != -100).sum()) for batch in micros)
        total = 0.0
        for batch in micros:
            loss = -model(**batch, head_chunk=64).log_probs.sum() / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.append((total, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
        optimizer.step()
        optimizer.zero_grad()
    return steps


RATES = {torch.optim.AdamW: 2e-5, torch.optim.SGD: 1e-2}


@pytest.mark.parametrize(
    ("optimizer", "attention", "one_row", "precision", "tolerance"),
    [
        (torch.optim.AdamW, "sdpa", False, torch.float32, 1e-5),
        (torch.optim.SGD, "sdpa", False, torch.float32, 1e-5),
        (torch.optim.AdamW, "eager", False, torch.float32, 1e-5),
        (torch.optim.SGD, "eager", True, torch.float32, 1e-5),
        (torch.optim.AdamW, "sdpa", True, torch.float64, 1e-12),  # nothing hides behind rounding
        (torch.optim.SGD, "sdpa", False, torch.float64, 1e-12),
    ],
)
def test_packed_steps_are_padded_steps(optimizer, attention, one_row, precision, tolerance):
    """Losses and gradients of every weight, over steps that each start from the last one's end.

    AdamW divides by sqrt(mean of squares) + 1e-8, so a difference d in a gradient that is no larger
    than 1e-8 becomes one of up to 2e-5 / 1e-8 = 2,000 d in the weight. In float64 rounding leaves
    d = 3e-17, so 6e-14 in weights, and in the next gradients what a sum of such makes: below 1e-12.
    """
    results = []
    for packed in (False, True):
        model, processor = random_model(attention, precision, max_image_tokens=16)
        steps = [mixed(processor, 6 * step) for step in range(3)]
        if packed:
            collate = PackedCollator(processor, one_row=one_row)
            batches = [[collate(packs[:2]), collate(packs[2:])] for packs in map(in_packs, steps)]
        else:
            collate = SFTCollator(processor)
            batches = [[collate(rows[:3]), collate(rows[3:])] for rows in steps]
        for batch in (batch for micros in batches for batch in micros):
            batch |= {key: batch[key].to(precision) for key in {"pixel_values"} & set(batch)}
        results.append(learn(model, batches, optimizer(model.parameters(), lr=RATES[optimizer])))
    for (loss, gradients), (other_loss, other_gradients) in zip(*results, strict=True):
        assert loss == pytest.approx(other_loss, abs=1e-5)
        assert max(float(gradient.abs().max()) for gradient in gradients) > 0.05
        for one, other in zip(gradients, other_gradients, strict=True):
            assert (one - other).abs().max() <= tolerance
    losses = [loss for loss, _ in results[0]]
    assert min(abs(a - b) for a, b in pairwise(losses)) > 0.01  # the steps do something


def in_packs(items: list[dict]) -> list[list[dict]]:
    lengths = [len(one["input_ids"]) for one in items]
    images = [len(one["images"]) for one in items]
    packs = best_fit(lengths, images, max_tokens=max(lengths) + min(lengths), max_images=4)
    assert len(packs) >= 3
    assert max(map(len, packs)) > 1
    return [[items[number] for number in pack] for pack in packs]


@torch.no_grad()
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("one_row", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_no_sample_changes_another_one_of_its_pack(attention, one_row, training):
    """Every sample is changed in turn, its text and its pictures; all others are watched."""
    model, processor = random_model(attention, torch.float32, max_image_tokens=16)
    model.train(training)
    collate = PackedCollator(processor, one_row=one_row)
    images = [1, 0, 2, 1]  # two packs: the first three, and the last beside filling

    def logits(changed: int | None = None, **change) -> list[torch.Tensor]:
        items = [
            item(processor, number, count, **(change if number == changed else {}))
            for number, count in enumerate(images)
        ]
        batch = collate([items[:3], items[3:]])
        del batch["labels"]
        lengths = [len(one["input_ids"]) for one in items]
        scores = model(**batch).logits
        rows = [scores[0, : sum(lengths)]] if one_row else [scores[0], scores[1, : lengths[3]]]
        return list(torch.cat([row for row in rows]).split(lengths))

    reference = logits()
    for changed, count in enumerate(images):
        changes = [{"question": "What color is the square?"}] + ([{"seed": 1000}] if count else [])
        for change in changes:
            for number, scores in enumerate(logits(changed, **change)):
                if number == changed:
                    assert (scores - reference[number]).abs().max() > 1e-3
                else:
                    assert (scores - reference[number]).abs().max() <= 1e-6
