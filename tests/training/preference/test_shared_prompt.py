"""A pair whose prompt stands once is exactly its two sides, each by itself."""

import copy

import pytest
import torch

from siqvl.data.pairs import PreferenceCollator
from siqvl.training.preference.pair_log_probs import completion_log_probs, segment_mask, sums
from tests.training.made_pairs import alone, pair, random_model

LAYOUTS = [
    pytest.param("eager", {}, id="eager"),
    pytest.param("sdpa", {}, id="sdpa"),
    pytest.param("sdpa", {"shared_prompt": False}, id="both sides whole"),
    pytest.param("sdpa", {"shared_prompt": False, "one_row": True}, id="one row"),
]
#: In float64; eager attention computes its softmax in float32 whatever the model is.
EXACT = {"sdpa": 1e-10, "eager": 5e-6}
SIDES = ("chosen", "rejected")


def pair_log_probs(model, batch: dict, *, head_chunk: int = 64) -> torch.Tensor:
    return sums(completion_log_probs(model, batch, core=model, head_chunk=head_chunk))


def in_precision(model, batch: dict) -> dict:
    if "pixel_values" in batch:
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    return batch


def pairs_of(processor, counts: list[int]) -> list[dict]:
    """Text alone, one picture and several, with prompts and completions of different lengths."""
    return [
        pair(processor, number, images, questions=1 + number % 3)
        for number, images in enumerate(counts)
    ]


@pytest.mark.parametrize(("attention", "layout"), LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_of_pairs_is_every_side_by_itself(attention, layout, packed) -> None:
    """Log-probabilities and the gradients of every weight, in float64."""
    model, processor = random_model(attention)
    items = pairs_of(processor, [1, 0, 3, 2])
    plain = copy.deepcopy(model)
    sides = [alone(plain, processor, item, side) for item in items for side in SIDES]
    expected = torch.stack([each.sum() for each in sides])
    factors = torch.linspace(-1, 2, 8, dtype=torch.float64)  # as a loss weighs them
    (expected * factors).sum().backward()

    collate = PreferenceCollator(processor, **layout)
    batch = in_precision(model, collate([items[:3], items[3:]] if packed else items))
    found = pair_log_probs(model, batch, head_chunk=5)
    (found * factors).sum().backward()
    assert batch["completion_tokens"] == [len(each) for each in sides]
    assert (found - expected).abs().max() < EXACT[attention]
    assert expected.unique().numel() == 8
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        # Qwen2's norms compute in float32, and here pass the gradient of both sides on at once
        assert (one.grad - other.grad).abs().max() < 5e-6, name
        assert other.grad.abs().max() > 0 or "k_proj.bias" in name, name


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_text_alone_and_bfloat16_autocast(attention) -> None:
    model, processor = random_model(attention, torch.float32)
    items = pairs_of(processor, [0, 0])
    batch = PreferenceCollator(processor)([items])
    expected = [alone(model, processor, item, side).sum() for item in items for side in SIDES]
    found = pair_log_probs(model, batch)
    assert (found - torch.stack(expected)).abs().max() < 1e-4
    with torch.autocast("cpu", torch.bfloat16):
        rough = pair_log_probs(model, batch)
    assert rough.dtype == torch.float32
    assert 0 < (rough - found).abs().max() < 0.05 * found.abs().min()


@pytest.mark.parametrize("shared", [True, False])
def test_the_tower_sees_every_picture_once(shared, monkeypatch) -> None:
    model, processor = random_model("sdpa", torch.float32)
    seen = []
    run = model.model.vision_tower.forward
    monkeypatch.setattr(
        model.model.vision_tower,
        "forward",
        lambda pixels, **kwargs: seen.append(pixels) or run(pixels, **kwargs),
    )
    batch = PreferenceCollator(processor, shared_prompt=shared)(pairs_of(processor, [1, 0, 3]))
    pair_log_probs(model, batch)
    assert [len(pixels) for pixels in seen] == [4]
    assert torch.equal(seen[0], batch["pixel_values"])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_nothing_but_its_own_text_changes_a_completion(attention) -> None:
    """The text of each side of each pair of a pack is changed in turn; all others are watched."""
    model, processor = random_model(attention)
    collate = PreferenceCollator(processor)

    def found(changed: int | None = None, **texts) -> torch.Tensor:
        pack = [
            pair(processor, number, images, **(texts if number == changed else {}))
            for number, images in enumerate([1, 0, 2])
        ]
        batch = in_precision(model, collate([pack[:2], pack[2:]]))
        return pair_log_probs(model, batch)

    reference = found()
    for number in range(3):
        for texts, moved in (
            ({"chosen": "green triangles"}, {2 * number}),
            ({"rejected": "green triangles"}, {2 * number + 1}),
            ({"question": "Where?"}, {2 * number, 2 * number + 1}),
        ):
            difference = (found(number, **texts) - reference).abs()
            for place in range(6):
                if place in moved:
                    assert difference[place] > 1e-3
                else:
                    assert difference[place] < EXACT[attention]


def test_mask_by_hand() -> None:
    """Prompt of three tokens, chosen of one, rejected of two, and a fill of one."""
    segments = torch.tensor([[0, 0, 1, 1, 2, 2, 2, 3]])
    expected = [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],  # the prompt's last token
        [1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0, 0],  # its copy
        [1, 1, 0, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ]
    seen = segment_mask(segments, additive=False)
    assert seen.dtype == torch.bool
    assert seen.int().tolist() == [[expected]]
    scores = segment_mask(segments, additive=True)
    assert torch.equal(scores == 0, seen)
    assert (scores[~seen] < -1e38).all()
