"""The plan of a run: nothing is lost, nothing depends on how a step is divided."""

import math
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from siqvl.data import batching
from siqvl.data.batching import BatchPlan
from siqvl.data.encode import encode_dataset
from siqvl.data.mixture import Mixture, Share
from siqvl.data.schema import RowKind
from siqvl.recipe import SFTStage, Source
from tests.data.made_rows import conversation, stored

KINDS = ["packed", "grouped", "padded"]
LENGTHS = np.random.default_rng(0).integers(5, 60, 203)
IMAGES = np.random.default_rng(1).integers(0, 3, 203).tolist()


def make_plan(kind: str, *, lengths=LENGTHS, weight=1.0, seed=0, steps=30, **options) -> BatchPlan:
    mixture = Mixture(
        [0] * len(lengths), lengths, names=["made"], weights=[weight], seed=seed, temperature=1.0
    )
    division = {"batch_size": 4, "accumulation": 1, "world": 1}
    if kind == "packed":
        options = {"pack_length": 64, "pack_images": 4} | options
    if "epochs" not in options:
        options["steps"] = steps
    images = IMAGES if len(lengths) == len(IMAGES) else [0] * len(lengths)
    return BatchPlan(mixture, images, batching=kind, **division | options)


def step_keys(plan: BatchPlan, step: int) -> list:
    """All keys of an optimizer step, over its batches and devices."""
    return [
        key
        for micro in range(plan.accumulation)
        for rank in range(plan.world)
        for key in plan.batch(step, micro, rank)
    ]


def items(keys) -> list[int]:
    return [item for key in keys for item in (key if isinstance(key, tuple) else [key])]


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_shown_once_an_epoch(kind):
    """Steps are counted from the sequences themselves; the last one runs into the next epoch."""
    plan = make_plan(kind, epochs=3)
    shown = Counter(items(key for step in range(plan.steps) for key in step_keys(plan, step)))
    assert set(shown) == set(range(203))
    assert min(shown.values()) >= 3
    spare = sum(shown.values()) - 3 * 203
    most_in_a_step = 4 * (64 // 5 if kind == "packed" else 1)
    assert 0 <= spare < most_in_a_step
    if kind != "packed":
        assert plan.steps == math.ceil(3 * 203 / 4)


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_run_on_into_one_another(kind):
    plan = make_plan(kind, steps=200)
    seen: Counter = Counter()
    for step in range(200):
        keys = step_keys(plan, step)
        assert len(keys) == 4
        seen.update(items(keys))
        assert max(seen.values()) - min(seen[item] for item in range(203)) <= 2
        assert max(seen.values()) <= plan.epoch_of(step) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_has_the_same_rows_however_it_is_divided(kind):
    divisions = [(24, 1, 1), (1, 24, 1), (4, 3, 2), (2, 2, 6), (3, 1, 8)]
    plans = [
        make_plan(kind, batch_size=size, accumulation=accumulation, world=world)
        for size, accumulation, world in divisions
    ]
    for step in (0, 7, 29):
        expected = step_keys(plans[0], step)
        assert all(step_keys(plan, step) == expected for plan in plans[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_any_step_can_be_asked_for_at_any_time(kind):
    plan, fresh = make_plan(kind, steps=300), make_plan(kind, steps=300)
    in_order = [step_keys(plan, step) for step in range(300)]
    for step in (299, 3, 150, 0, 151):
        assert step_keys(fresh, step) == in_order[step]


def test_packs_keep_both_budgets():
    plan = make_plan("packed", steps=100)
    for step in range(100):
        for pack in plan.batch(step):
            assert sum(LENGTHS[item] for item in pack) <= 64
            assert sum(IMAGES[item] for item in pack) <= 4


def test_packs_are_neither_all_long_nor_all_short_for_a_while():
    """Best-fit makes packs of long rows first; the plan does not show them in that order."""
    lengths = np.random.default_rng(2).permutation(np.repeat([8, 40], 2000))
    plan = make_plan("packed", lengths=lengths, epochs=1)
    rows = [len(items(step_keys(plan, step))) for step in range(plan.steps)]
    whole = np.array(rows[: plan.steps // 10 * 10]).reshape(10, -1).mean(axis=1)
    assert whole.max() < 1.5 * whole.min()


def test_windows_change_nothing_of_what_an_epoch_holds(monkeypatch):
    monkeypatch.setattr(batching, "PACK_WINDOW", 50)
    plan = make_plan("packed", steps=1)
    packs = plan._epoch(0)
    assert sorted(packs.items.tolist()) == list(range(203))
    assert packs.ends[-1] == 203


def test_grouped_batches_have_like_lengths_in_a_shuffled_order():
    lengths = np.random.default_rng(3).integers(10, 1000, 800)
    plan = make_plan("grouped", lengths=lengths, epochs=1)
    batches = [lengths[plan.batch(step)] for step in range(plan.steps)]
    spread = np.mean([batch.max() - batch.min() for batch in batches])
    assert spread < 40  # four random rows of this spread lie 594 apart on average
    means = np.array([batch.mean() for batch in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_the_padding_share_by_hand():
    # in the order they come, whatever it is: widths and tokens are counted from the batches
    plan = make_plan("padded", steps=50)
    batches = [LENGTHS[plan.batch(step)] for step in range(50)]
    positions = sum(4 * batch.max() for batch in batches)
    assert plan.padding_share() == pytest.approx(
        1 - sum(batch.sum() for batch in batches) / positions
    )
    same = make_plan("padded", lengths=np.full(20, 7))
    assert same.padding_share() == 0


def test_padding_falls_from_padded_to_grouped_to_packed():
    rng = np.random.default_rng(4)
    lengths = np.clip(rng.lognormal(5, 0.9, 3000).astype(int), 10, 2048)
    shares = {
        kind: make_plan(kind, lengths=lengths, epochs=1, pack_length=2048).padding_share()
        for kind in KINDS
    }
    assert shares["padded"] > 0.3
    assert shares["grouped"] < 0.1
    assert shares["packed"] < 0.05


def test_a_run_of_epochs_ends_after_the_step_that_shows_the_last_row():
    plan = make_plan("padded", lengths=np.full(10, 7), batch_size=4, epochs=1)
    assert plan.steps == 3
    assert plan.steps_for(2) == 5
    assert plan.steps_for(0.4) == 1
    assert plan.steps_for(1.2) == 3
    assert plan.steps_for(0.01) == 1


def test_an_epoch_smaller_than_a_step_is_no_special_case():
    plan = make_plan("grouped", lengths=np.full(3, 7), batch_size=8, steps=6)
    shown = Counter(items(key for step in range(6) for key in step_keys(plan, step)))
    assert shown == dict.fromkeys(range(3), 16)


def test_what_a_run_holds_of_each_source():
    lengths = np.full(12, 7)
    mixture = Mixture([0] * 4 + [1] * 8, lengths, names=["a", "b"], weights=[2.0, 0.5])
    plan = BatchPlan(mixture, [0] * 12, batching="padded", batch_size=4, epochs=3)
    shares = plan.realised()
    assert [(share.source, share.rows, share.tokens) for share in shares] == [
        ("a", 24, 168),
        ("b", 12, 84),
    ]


def test_what_an_epoch_leaves_over_does_not_keep_the_epoch_in_memory():
    plan = make_plan("padded", lengths=np.full(1003, 7), steps=251)
    plan.batch(250)
    rest = plan._rests[1]
    assert len(rest) == 3
    for values in (rest.items, rest.ends):
        assert values.base is None or values.base.size < 10


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_run_add_up_to_it(kind):
    plan = make_plan(kind, steps=250)
    bounds = [0, 17, 100, 250]
    parts = [plan.realised(first, end)[0] for first, end in pairwise(bounds)]
    (whole,) = plan.realised()
    assert sum(part.rows for part in parts) == whole.rows
    shown = items(key for step in range(250) for key in step_keys(plan, step))
    assert whole == Share("made", len(shown), int(LENGTHS[shown].sum()))


def test_planned_epochs_are_kept_as_far_as_they_fit(monkeypatch):
    plan = make_plan("packed", steps=100)
    packed = []
    pack = plan._packed
    monkeypatch.setattr(plan, "_packed", lambda *args: packed.append(args[1]) or pack(*args))
    plan.realised()
    plan.padding_share()
    assert packed == sorted(set(packed))
    assert len(packed) > 2
    monkeypatch.setattr(batching, "REMEMBERED", 203)
    forgetful = make_plan("packed", steps=100)
    assert forgetful.realised() == plan.realised()
    assert len(forgetful._epochs) <= 2


def test_the_plan_of_a_stage_follows_its_recipe(processor):
    rows = [conversation(number, number % 2, [("What?", "this")]) for number in range(8)]
    encoded = encode_dataset(stored(rows), processor, kind=RowKind.SFT, max_length=400)
    mixture = Mixture([0] * 8, encoded.lengths, names=["made"], weights=[1.0])
    stage = SFTStage(
        sources=[Source(kind="shapes")],
        trainable=["projector"],
        learning_rate=1,
        epochs=2,
        batch_size=1,
        accumulation=2,
        max_length=400,
        max_images=2,
        pack_images=2,
    )
    plan = BatchPlan.of(stage, encoded, mixture)
    packs = [pack for step in range(plan.steps) for pack in step_keys(plan, step)]
    assert max(sum(encoded.num_images[item] for item in pack) for pack in packs) == 2
    lengths = [sum(encoded.lengths[item] for item in pack) for pack in packs]
    assert 200 < max(lengths) <= 400  # of max_length, because there is no pack_length
    wider = BatchPlan.of(stage.model_copy(update={"pack_length": 800}), encoded, mixture, world=2)
    assert wider.pack_length == 800
    assert wider.sequences_per_step == 4
    plain = stage.model_copy(update={"batching": "padded", "max_steps": 3, "epochs": None})
    assert BatchPlan.of(plain, encoded, mixture).steps == 3


def test_batches_outside_of_the_run_are_refused():
    plan = make_plan("padded", steps=3, accumulation=2, world=2)
    for place in ((3, 0, 0), (-1, 0, 0), (0, 2, 0), (0, 0, 2)):
        with pytest.raises(IndexError):
            plan.batch(*place)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1, "epochs": 1}, "exactly one of `steps` and `epochs`"),
        ({"steps": 1, "pack_length": None}, "needs `pack_length`"),
    ],
)
def test_a_plan_that_is_not_determined_is_refused(options, message):
    mixture = Mixture([0], [5], names=["made"], weights=[1.0])
    with pytest.raises(ValueError, match=message):
        BatchPlan(mixture, [0], batching="packed", batch_size=1, **options)


def test_a_million_rows_are_planned_in_seconds():
    """Rows of a like length and padded ones in a moment; 7 s a million when packed (measured)."""
    rng = np.random.default_rng(5)
    lengths = np.clip(rng.lognormal(5, 0.9, 1_000_000).astype(int), 10, 2048)
    started = time.perf_counter()
    for kind in ("padded", "grouped"):
        make_plan(kind, lengths=lengths, steps=1).batch(0)
    assert time.perf_counter() - started < 5
    started = time.perf_counter()
    make_plan("packed", lengths=lengths[:50_000], steps=1, pack_length=2048).batch(0)
    assert time.perf_counter() - started < 5
