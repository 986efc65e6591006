"""Batches against TRL's own collators, and against expectations written by hand."""

import copy
from itertools import accumulate, pairwise
from typing import ClassVar

import pytest
import torch
from PIL import Image

from siqvl.data.collate import (
    PackedCollator,
    SFTCollator,
)
from siqvl.data.encode import encode_preference, encode_prompt, encode_sft
from siqvl.data.pairs import PreferenceCollator
from siqvl.data.schema import RowKind, message


@pytest.fixture
def rows(make_row):
    """Rows of different length, and with none, one and two images."""

    def build(kind: RowKind, images: bool = True):
        texts = ["Hi", "What color is the circle at the left?", "Where?"]
        made = []
        for number, text in enumerate(texts):
            pictures = [Image.new("RGB", (8, 8), (90 * number, 9, i)) for i in range(number)]
            prompt = [message("user", text)]
            made.append(make_row(kind, number, images=pictures if images else [], prompt=prompt))
        made[1][{RowKind.SFT: "completion", RowKind.PREFERENCE: "chosen"}[kind]] = [
            message("assistant", "a much longer answer")
        ]
        return made

    return build


def sft_items(rows, processor):
    items = []
    for row in rows:
        one = encode_sft(row, processor)
        items.append({"input_ids": one.input_ids, "labels": one.labels, "images": row["images"]})
    return items


def preference_items(rows, processor):
    items = []
    for row in rows:
        item = {"images": row["images"]}
        for side, one in zip(
            ("chosen", "rejected"), encode_preference(row, processor), strict=True
        ):
            item |= {f"{side}_input_ids": one.input_ids, f"{side}_labels": one.labels}
        items.append(item)
    return items


def without_newline(ids: torch.Tensor, mask: torch.Tensor, processor):
    """TRL trains on the newline after <|im_end|>; drop it from its batch, row by row."""
    newline = processor.tokenizer("\n")["input_ids"][0]
    kept = []
    for row, valid in zip(ids, mask, strict=True):
        row = row[valid.bool()].tolist()
        assert row[-1] == newline
        kept.append(row[:-1])
    return kept


def unpadded(batch):
    return [
        row[valid.bool()].tolist()
        for row, valid in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


@pytest.mark.parametrize("images", [True, False])
def test_sft_batches_equal_trl(processor, rows, images):
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    made = rows(RowKind.SFT, images)
    ours = SFTCollator(processor)(sft_items(made, processor))
    collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    theirs = collator(copy.deepcopy(made))
    assert unpadded(ours) == without_newline(
        theirs["input_ids"], theirs["attention_mask"], processor
    )
    for ours_row, theirs_row in zip(ours["labels"], theirs["labels"], strict=True):
        assert ours_row[ours_row != -100].tolist() == theirs_row[theirs_row != -100].tolist()[:-1]
    assert ("pixel_values" in ours) == ("pixel_values" in theirs) == images
    if images:
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"])


@pytest.mark.parametrize("images", [True, False])
def test_pairs_hold_what_trls_batches_hold(processor, rows, images):
    """Both sides of every pair, taken out of the shared rows by their segments."""
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    made = rows(RowKind.PREFERENCE, images)
    ours = PreferenceCollator(processor)(preference_items(made, processor))
    theirs = DataCollatorForVisionPreference(processor)(copy.deepcopy(made))
    expected = without_newline(theirs["input_ids"], theirs["attention_mask"], processor)
    for number in range(3):
        ids, segments = ours["input_ids"][number], ours["segments"][number]
        assert ids[segments <= 1].tolist() == expected[number]
        assert ids[(segments == 0) | (segments == 2)].tolist() == expected[3 + number]
        positions = ours["position_ids"][number]
        for kept in (segments <= 1, (segments == 0) | (segments == 2)):
            assert positions[kept].tolist() == list(range(int(kept.sum())))
        learned = ours["labels"][number][ours["labels"][number] != -100].tolist()
        masks = theirs["completion_mask"].bool()
        sides = [theirs["input_ids"][side][masks[side]].tolist() for side in (number, 3 + number)]
        assert learned == sides[0][:-1] + sides[1][:-1]
        assert ours["completion_tokens"][2 * number :][:2] == [len(side) - 1 for side in sides]
    assert ("pixel_values" in ours) == images
    if images:
        assert torch.equal(torch.cat([ours["pixel_values"]] * 2), theirs["pixel_values"])


def pair(prompt: list[int], chosen: list[int], rejected: list[int], **more) -> dict:
    item = {"images": []} | more
    for side, ids in (("chosen", chosen), ("rejected", rejected)):
        item[f"{side}_input_ids"] = prompt + ids
        item[f"{side}_labels"] = [-100] * len(prompt) + ids
    return item


def test_pairs_by_hand(processor):
    pad = processor.tokenizer.pad_token_id
    pairs = [pair([5, 6, 7], [8], [9, 10]), pair([3], [4, 5], [6]), pair([1, 2], [3], [4])]
    batch = PreferenceCollator(processor)([pairs[:2], pairs[2:]])
    assert set(batch) == {"input_ids", "position_ids", "labels", "segments", "completion_tokens"}
    fill = [pad] * 7
    assert batch["input_ids"].tolist() == [
        [5, 6, 7, 8, 7, 9, 10, 3, 4, 5, 3, 6],
        [1, 2, 3, 2, 4, *fill],
    ]
    assert batch["position_ids"].tolist() == [
        [0, 1, 2, 3, 2, 3, 4, 0, 1, 2, 0, 1],
        [0, 1, 2, 1, 2, *range(7)],
    ]
    assert batch["segments"].tolist() == [
        [0, 0, 1, 1, 2, 2, 2, 4, 4, 4, 5, 5],
        [0, 1, 1, 2, 2, *[3] * 7],
    ]
    assert batch["labels"].tolist() == [
        [-100, -100, -100, 8, -100, 9, 10, -100, 4, 5, -100, 6],
        [-100, -100, 3, -100, 4, *[-100] * 7],
    ]
    assert batch["completion_tokens"] == [1, 2, 2, 1, 1, 1]
    one_a_row = PreferenceCollator(processor)(pairs)
    assert one_a_row["segments"].tolist() == [
        [0, 0, 1, 1, 2, 2, 2],
        [1, 1, 1, 2, 2, 3, 3],
        [0, 1, 1, 2, 2, 3, 3],
    ]


def test_whole_sides_by_hand(processor):
    pairs = [pair([5, 6], [8], [9, 10]), pair([3], [4], [6])]
    batch = PreferenceCollator(processor, shared_prompt=False, one_row=True)(pairs)
    assert set(batch) == {"input_ids", "position_ids", "labels", "completion_tokens"}
    assert batch["input_ids"].tolist() == [[5, 6, 8, 5, 6, 9, 10, 3, 4, 3, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 0, 1, 0, 1]]
    ignored = -100
    assert batch["labels"].tolist() == [
        [ignored, ignored, 8, ignored, ignored, 9, 10, ignored, 4, ignored, 6]
    ]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"rejected_input_ids": [5, 8, 9]}, "prompts of 2 and 2 tokens"),
        ({"rejected_labels": [-100, -100, -100]}, "prompts of 2 and 0 tokens"),
        ({"chosen_labels": [-100, 6, 8]}, "prompts of 1 and 2 tokens"),
    ],
)
def test_sides_of_different_prompts_are_refused(processor, changed, found):
    with pytest.raises(ValueError, match=found):
        PreferenceCollator(processor)([pair([5, 6], [8], [9]) | changed])


def test_reference_log_probabilities_pass_through(processor, rows):
    items = preference_items(rows(RowKind.PREFERENCE), processor)
    for number, item in enumerate(items):
        item |= {"ref_chosen_logps": -1.0 * number, "ref_rejected_logps": -2.0 * number}
    batch = PreferenceCollator(processor)([items[:1], items[1:]])
    assert batch["ref_chosen_logps"].tolist() == [0.0, -1.0, -2.0]
    assert batch["ref_rejected_logps"].tolist() == [0.0, -2.0, -4.0]


def test_padding_by_hand(processor):
    pad = processor.tokenizer.pad_token_id
    items = [
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "images": []},
        {"input_ids": [8], "labels": [8], "images": []},
    ]
    batch = SFTCollator(processor)(items)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, pad, pad]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]


def test_generation_starts_where_training_answers(processor, rows):
    for row in rows(RowKind.SFT):
        ids, one = encode_prompt(row, processor).input_ids, encode_sft(row, processor)
        assert one.input_ids[: len(ids)] == ids
        assert one.labels[len(ids)] != -100


def test_collators_leave_items_as_they_are(processor, rows):
    items = preference_items(rows(RowKind.PREFERENCE), processor)
    before = copy.deepcopy(items)
    PreferenceCollator(processor)(items)
    assert items == before


def packed_items(rows, processor):
    """Two packs of 2 and 1 samples, made of texts and none, one and two images."""
    first, second, third = sft_items(rows(RowKind.SFT), processor)
    return [[first, third], [second]]


def test_packing_by_hand(processor):
    pad = processor.tokenizer.pad_token_id
    packs = [
        [
            {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "images": []},
            {"input_ids": [8, 9], "labels": [8, 9], "images": []},
        ],
        [{"input_ids": [4, 3], "labels": [-100, 3], "images": []}],
    ]
    batch = PackedCollator(processor)(packs)
    assert set(batch) == {"input_ids", "position_ids", "labels"}
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [4, 3, pad, pad, pad]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, 9], [-100, 3, -100, -100, -100]]
    batch = PackedCollator(processor, one_row=True)(packs)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4, 3]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, 9, -100, 3]]


@pytest.mark.parametrize("one_row", [False, True])
def test_a_packed_batch_holds_what_the_padded_one_holds(processor, rows, one_row):
    packs = packed_items(rows, processor)
    packed = PackedCollator(processor, one_row=one_row)(packs)
    padded = SFTCollator(processor)([item for pack in packs for item in pack])
    assert torch.equal(packed["pixel_values"], padded["pixel_values"])
    for key in ("input_ids", "labels"):
        samples = [
            row[mask.bool()].tolist()
            for row, mask in zip(padded[key], padded["attention_mask"], strict=True)
        ]
        found = []
        for row, positions in zip(packed[key], packed["position_ids"], strict=True):
            starts = [*(positions == 0).nonzero().flatten().tolist(), len(positions)]
            found += [row[a:b].tolist() for a, b in pairwise(starts)]
        fill = [one for one in found if one not in samples]
        assert [one for one in found if one in samples] == samples
        assert len(fill) == (0 if one_row else 1)


def test_flash_attention_sees_the_borders_of_one_row_alone(processor, rows):
    """transformers' own reading of the positions; in a batch of two rows it sees no border."""
    from transformers import modeling_flash_attention_utils as flash

    packs = packed_items(rows, processor)
    row = PackedCollator(processor, one_row=True)(packs)["position_ids"]
    assert flash._is_packed_sequence(row, batch_size=1)
    (borders, _), (longest, _) = flash.prepare_fa_kwargs_from_position_ids(row)
    lengths = [len(item["input_ids"]) for pack in packs for item in pack]
    assert borders.tolist() == [0, *accumulate(lengths)]
    assert longest == max(lengths)
    two_rows = PackedCollator(processor)(packs)["position_ids"]
    assert not flash._is_packed_sequence(two_rows, batch_size=2)


class TestCachedFeatures:
    """Items name their images; batches hold what the tower made of these, in reading order."""

    features: ClassVar = {
        name: torch.full((5, 3), ord(name), dtype=torch.bfloat16) for name in "abcd"
    }

    def items(self, *names: str) -> list[dict]:
        tokens = {"input_ids": [5, 6], "labels": [-100, 6]}
        pair = {
            f"{side}_{key}": ids for side in ("chosen", "rejected") for key, ids in tokens.items()
        }
        return [tokens | pair | {"image_hashes": list(name)} for name in names]

    def shown(self, batch: dict) -> str:
        assert "pixel_values" not in batch
        assert batch["vision_features"].dtype == torch.bfloat16
        assert batch["vision_features"].shape[1:] == (5, 3)
        return "".join(chr(int(image[0, 0])) for image in batch["vision_features"])

    def test_of_padded_batches(self, processor):
        collate = SFTCollator(processor, self.features)
        assert self.shown(collate(self.items("b", "", "da", "b"))) == "bdab"

    def test_of_packed_batches(self, processor):
        first, second, third = self.items("b", "da", "")
        collate = PackedCollator(processor, self.features)
        assert self.shown(collate([[second, third], [first]])) == "dab"

    @pytest.mark.parametrize("shared", [True, False])
    def test_of_pairs(self, processor, shared):
        collate = PreferenceCollator(processor, self.features, shared_prompt=shared)
        batch = collate(self.items("b", "", "da"))
        assert self.shown(batch) == "bda"
        assert ("image_order" in batch) == (not shared)
        if not shared:
            assert batch["image_order"].tolist() == [0, 0, 1, 2, 1, 2]

    def test_of_texts_alone(self, processor):
        batch = SFTCollator(processor, self.features)(self.items("", ""))
        assert set(batch) == {"input_ids", "attention_mask", "labels"}
