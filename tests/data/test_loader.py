"""Batches of a run: the same ones whatever happens on the way."""

import re

import pytest
import torch
from accelerate import Accelerator, skip_first_batches

from siqvl.data.batching import BatchPlan
from siqvl.data.collate import PackedCollator, SFTCollator
from siqvl.data.encode import encode_dataset
from siqvl.data.loader import PlanSampler, TrainingLoader
from siqvl.data.mixture import Mixture
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from tests.data.made_rows import conversation, stored

KINDS = ["packed", "grouped", "padded"]
ROWS = 23


@pytest.fixture(scope="module")
def rows():
    return [
        conversation(number, number % 3, [("What?" * (1 + number % 5), f"{number}")])
        for number in range(ROWS)
    ]


@pytest.fixture(scope="module")
def encoded(rows, processor):
    return encode_dataset(stored(rows), processor, kind=RowKind.SFT, max_length=400)


@pytest.fixture
def make_loader(encoded, processor):
    def build(kind: str, *, data=encoded, seed=0, steps=8, rank=0, workers=0, **division):
        mixture = Mixture([0] * ROWS, data.lengths, names=["made"], weights=[1.0], seed=seed)
        division = {"batch_size": 2, "accumulation": 2, "world": 1} | division
        plan = BatchPlan(
            mixture, data.num_images, batching=kind, steps=steps, pack_length=400, **division
        )
        collate = PackedCollator(processor) if kind == "packed" else SFTCollator(processor)
        return TrainingLoader(data, collate, plan, rank=rank, workers=workers)

    return build


def same(one: dict, other: dict) -> bool:
    return set(one) == set(other) and all(torch.equal(one[key], other[key]) for key in one)


def all_same(some, others) -> bool:
    return all(same(one, other) for one, other in zip(some, others, strict=True))


def test_a_loader_gives_what_the_plan_says(make_loader, encoded, processor):
    loader = make_loader("padded")
    batches = list(loader.dataloader())
    assert len(batches) == len(loader.dataloader()) == 16
    for number, batch in enumerate(batches):
        items = [encoded[item] for item in loader.plan.batch(*divmod(number, 2))]
        assert same(batch, SFTCollator(processor)(items))


@pytest.mark.parametrize("kind", KINDS)
def test_devices_share_every_step_between_them(make_loader, kind):
    alone = PlanSampler(make_loader(kind, batch_size=12, accumulation=1).plan)
    plan = make_loader(kind, batch_size=2, accumulation=2, world=3).plan
    devices = [list(PlanSampler(plan, rank)) for rank in range(3)]
    for step, whole in enumerate(alone):
        parts = [key for micro in (0, 1) for device in devices for key in device[2 * step + micro]]
        assert parts == whole


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["packed", "grouped"])
def test_accelerate_skips_to_the_same_batches(make_loader, kind, workers):
    """How Hugging Face's Trainer resumes."""
    straight = list(make_loader(kind).dataloader())
    plain = make_loader(kind, workers=workers).dataloader()
    assert len(plain) == 16
    skipped = skip_first_batches(plain, 5)
    assert len(skipped) == 11
    assert all_same(skipped, straight[5:])
    prepared = Accelerator(cpu=True).prepare(make_loader(kind, workers=workers).dataloader())
    assert all_same(skip_first_batches(prepared, 5), straight[5:])


@pytest.fixture
def damaged(rows, processor):
    """Row 7 with the first bytes of its picture alone."""
    changed = [dict(row) for row in rows]
    changed[7]["images"] = [changed[7]["images"][0][:40]]
    return encode_dataset(stored(changed), processor, kind=RowKind.SFT, max_length=400)


UNREADABLE = r"^a picture of row made/7 cannot be read \([^\n]*\); prepare the data again$"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_an_unreadable_picture_names_its_row(make_loader, damaged, kind, workers):
    batches = skip_first_batches(make_loader(kind, data=damaged, workers=workers).dataloader())
    message = ""
    try:
        list(batches)
    except UserError as error:  # pytest.raises would keep its frames, and with them the workers
        message = error.with_traceback(None).message
    assert re.search(UNREADABLE, message)


def test_with_hashes_no_picture_is_opened(encoded, processor, make_loader, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(Image, "open", lambda *args, **options: pytest.fail("decoded"))
    features = {
        name: torch.full((16, 4), float(number), dtype=torch.bfloat16)
        for number, name in enumerate(
            name for index in range(ROWS) for name in encoded.image_hashes(index)
        )
    }
    loader = make_loader("packed", data=encoded.with_hashes())
    loader.collate = PackedCollator(processor, features)
    for number, batch in enumerate(loader.dataloader()):
        keys = loader.plan.batch(*divmod(number, 2))
        names = [n for pack in keys for item in pack for n in encoded.image_hashes(item)]
        expected = torch.stack([features[name] for name in names])
        assert torch.equal(batch["vision_features"], expected)
