"""Figures of telemetry against the batches that the collators make of the same plan."""

import io
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from datasets import Dataset
from PIL import Image

from siqvl.checkpoint import read_history
from siqvl.data.batching import BatchPlan
from siqvl.data.collate import PackedCollator, SFTCollator
from siqvl.data.encode import encode_dataset
from siqvl.data.encoded import EncodedDataset
from siqvl.data.loader import PlannedItems
from siqvl.data.mixture import Mixture
from siqvl.data.pairs import PreferenceCollator
from siqvl.data.schema import RowKind, features, preference_row, sft_row
from siqvl.model.assemble import assemble
from siqvl.recipe import PIPELINE, Stage
from siqvl.training.figures.flops import TrainingFlops
from siqvl.training.figures.telemetry import Telemetry
from siqvl.training.figures.work import ItemWork
from siqvl.training.memory.batch_shape import BatchShape
from tests.quick import children

BASE = Path(__file__).parents[3] / "recipes" / "tiny_base"
ROWS = 60
NAMES = ["shapes", "shapes", "easy_vqa"]
ANSWERS = ("red", "a blue circle and a red square", "2", "yes", "no", "three of them")


@pytest.fixture(scope="module")
def parts():
    """Config and processor of the tiny base."""
    model, processor = assemble(
        BASE / "vision", BASE / "language", max_image_tokens=4, init="config"
    )
    return model.config, processor


def picture(number: int) -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number, number // 2, 7)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def dataset(processor, kind: RowKind) -> EncodedDataset:
    """Rows with no, one and two pictures, with one turn or two, all of which are learned."""
    rows = []
    for number in range(ROWS):
        images = [picture(number)] * (number % 3)
        question = "What color is the circle? " * (1 + number % 4)
        answer = ANSWERS[number % 6]
        if kind is RowKind.PREFERENCE:
            other = ANSWERS[(number + 1) % 6]
            row = preference_row(f"made/{number}", images, question, answer, other, source="made")
            rows.append(row)
        else:
            rows.append(sft_row(f"made/{number}", images, question, answer, source="made"))
    columns = features(kind)
    stored = Dataset.from_list([{n: row.get(n, []) for n in columns} for row in rows], columns)
    return encode_dataset(stored, processor, kind=kind, max_length=400)


def plan_of(encoded: EncodedDataset, batching: str, **division) -> BatchPlan:
    """Three sources, two of which share a name."""
    mixture = Mixture(
        [number * 3 // ROWS for number in range(ROWS)],
        encoded.lengths, names=NAMES, weights=[1.0, 2.0, 1.0], seed=3,
    )  # fmt: skip
    division = {"batch_size": 4, "accumulation": 2, "world": 2} | division
    return BatchPlan(
        mixture, encoded.num_images, batching=batching, steps=30, pack_length=400, **division
    )


class Clock:
    """A clock that the test sets."""

    time = 100.0

    def __call__(self) -> float:
        return self.time


def collated(plan: BatchPlan, encoded: EncodedDataset, collate, steps: range):
    """Every batch of some steps, with its keys and rank."""
    items = PlannedItems(encoded)
    for step in steps:
        for micro in range(plan.accumulation):
            for rank in range(plan.world):
                keys = plan.batch(step, micro, rank)
                yield rank, keys, collate([items[key] for key in keys])


@pytest.mark.parametrize("batching", ["packed", "grouped", "padded"])
def test_figures_are_those_of_the_batches(parts, batching) -> None:
    config, processor = parts
    encoded = dataset(processor, RowKind.SFT)
    plan = plan_of(encoded, batching)
    flops = TrainingFlops(config, ["projector", "language_model"])
    clock = Clock()
    telemetry = Telemetry(plan, ItemWork(encoded), flops, peak_flops=1e9, clock=clock)
    telemetry.begin(0)
    collate = (PackedCollator if batching == "packed" else SFTCollator)(processor)
    seen = [0, 0]
    for steps in (range(0, 1), range(1, 8), range(8, 20)):  # runs into the next epochs
        tokens = images = samples = positions = pairs = learned = 0
        for _, keys, batch in collated(plan, encoded, collate, steps):
            rows = [row for key in keys for row in (key if isinstance(key, tuple) else [key])]
            lengths = [len(encoded[row]["input_ids"]) for row in rows]
            tokens += sum(lengths)
            pairs += sum(sum(range(1, n + 1)) for n in lengths)
            samples += len(rows)
            images += len(batch.get("pixel_values", []))
            learned += int((batch["labels"][:, 1:] != -100).sum())
            positions += batch["input_ids"].numel()
        telemetry.waited += 0.5
        telemetry.waited += 0.25
        clock.time += 3.0
        figures = telemetry.figures(steps.stop)
        seen = [seen[0] + tokens, seen[1] + images]
        assert figures["tokens_per_second"] == pytest.approx(tokens / 3)
        assert figures["images_per_second"] == pytest.approx(images / 3)
        assert figures["samples_per_second"] == pytest.approx(samples / 3)
        assert figures["data_wait_share"] == pytest.approx(0.25)
        assert figures["padding_share"] == pytest.approx(1 - tokens / positions)
        assert [figures["tokens_seen"], figures["images_seen"]] == seen
        operations = (
            flops.token * tokens + flops.pair * pairs
            + flops.image * images + flops.learned * learned
        )  # fmt: skip
        assert figures["mfu"] == pytest.approx(operations / (3 * 1e9 * 2))
        assert telemetry.figures(steps.stop) == {}  # nothing has happened since
    assert 0.05 < figures["peak_memory_gib"] < 50


def test_a_resumed_run_counts_like_one_that_was_not_interrupted(parts) -> None:
    _, processor = parts
    encoded = dataset(processor, RowKind.SFT)
    whole, resumed = Clock(), Clock()
    first = Telemetry(plan_of(encoded, "packed"), ItemWork(encoded), clock=whole)
    for step in (3, 9, 17):
        first.figures(step)
    second = Telemetry(plan_of(encoded, "packed"), ItemWork(encoded), clock=resumed)
    resumed.time += 1000  # loading what was saved
    second.on_train_begin(None, State(17), None)
    whole.time += 2
    resumed.time += 2
    one, other = first.figures(21), second.figures(21)
    one.pop("peak_memory_gib"), other.pop("peak_memory_gib")
    assert one == other
    assert "mfu" not in one  # no peak is known


class State:
    def __init__(self, step: int) -> None:
        self.global_step = step


@pytest.mark.parametrize(
    ("batching", "one_row"), [("packed", False), ("packed", True), ("grouped", False)]
)
def test_every_token_is_counted_to_its_source(parts, batching, one_row) -> None:
    """A token's loss is its id here, so that one that went astray would show."""
    _, processor = parts
    encoded = dataset(processor, RowKind.SFT)
    plan = plan_of(encoded, batching, world=1)
    telemetry = Telemetry(plan, ItemWork(encoded), one_row=one_row)
    collate = (
        PackedCollator(processor, one_row=one_row)
        if batching == "packed"
        else SFTCollator(processor)
    )
    expected = defaultdict(list)
    for _, keys, batch in collated(plan, encoded, collate, range(9)):
        labels = batch["labels"][:, 1:]
        telemetry.losses.add(keys, labels[labels != -100].float().requires_grad_())
        for key in keys:
            for row in key if isinstance(key, tuple) else [key]:
                learned = [label for label in encoded[row]["labels"] if label != -100]
                expected[row * 3 // ROWS] += learned
    losses = {k: v for k, v in telemetry.figures(9).items() if k.startswith("loss/")}
    assert losses == {
        f"loss/source {number} {NAMES[number]}": pytest.approx(sum(ids) / len(ids))
        for number, ids in expected.items()
    }
    assert len(losses) == 3
    assert len(set(losses.values())) == 3
    assert not any(name.startswith("loss/") for name in telemetry.figures(10))


def test_losses_of_other_rows_are_refused(parts) -> None:
    _, processor = parts
    encoded = dataset(processor, RowKind.SFT)
    plan = plan_of(encoded, "grouped")
    with pytest.raises(ValueError, match="have shape"):
        Telemetry(plan, ItemWork(encoded)).losses.add(plan.batch(0), torch.zeros(3))


@pytest.mark.parametrize("shared", [False, True])
def test_chosen_sides_alone(parts, shared) -> None:
    """Nothing is counted of rejected ones, which the collator leaves out."""
    _, processor = parts
    encoded = dataset(processor, RowKind.PREFERENCE).as_pairs(shared_prompt=shared)
    items = ItemWork(encoded, shared_prompt=shared, chosen_alone=True)
    collate = PreferenceCollator(processor, shared_prompt=shared, chosen_alone=True)
    for row in range(4):
        batch, work = collate([encoded[row]]), items.total(np.array([row]))
        tokens = batch["input_ids"].numel()
        assert (work.tokens, work.pairs) == (tokens, tokens * (tokens + 1) // 2)
        assert work.learned == int((batch["labels"] != -100).sum())
        assert work.images == len(batch.get("pixel_values", []))
        shown = batch.get("image_order", torch.arange(work.images))
        assert shown.tolist() == list(range(work.images))


@pytest.mark.parametrize("shared", [False, True])
def test_pairs(parts, shared) -> None:
    """Against the collator's batches: who sees whom is counted token by token."""
    config, processor = parts
    encoded = dataset(processor, RowKind.PREFERENCE).as_pairs(shared_prompt=shared)
    items = ItemWork(encoded, shared_prompt=shared)
    plan = plan_of(encoded, "packed", accumulation=1, world=1)
    clock = Clock()
    flops = TrainingFlops(config, ["projector", "language_model"])
    telemetry = Telemetry(plan, items, flops, 1e9, clock=clock)
    collate = PreferenceCollator(processor, shared_prompt=shared)
    pairs = tokens = images = learned = positions = 0
    chosen = defaultdict(list)
    for _, keys, batch in collated(plan, encoded, collate, range(2)):
        rows = [row for key in keys for row in key]
        nll = batch["input_ids"].new_empty(0)
        for row in rows:
            sides = [encoded[row][f"{side}_labels"] for side in ("chosen", "rejected")]
            completions = [[label for label in side if label != -100] for side in sides]
            learned += sum(map(len, completions))
            chosen[row * 3 // ROWS] += completions[0]
            nll = torch.cat([nll, torch.tensor(completions[0])])
            if not shared:
                pairs += sum(sum(range(1, len(side) + 1)) for side in sides)
        telemetry.losses.add(keys, nll.float())
        for key, segments in zip(keys, batch.get("segments", []), strict=shared):
            for one in range(3 * len(key)):
                own = int((segments == one).sum())
                before = 0 if one % 3 == 0 else int((segments == one // 3 * 3).sum())
                pairs += sum(before + place for place in range(1, own + 1))
        tokens += sum(encoded.lengths[row] for row in rows)
        images += len(batch.get("pixel_values", []))
        positions += batch["input_ids"].numel()
    clock.time += 1
    figures = telemetry.figures(2)
    assert figures["tokens_per_second"] == tokens
    assert figures["images_per_second"] == images
    assert figures["padding_share"] == pytest.approx(1 - tokens / positions)
    operations = (
        flops.token * tokens + flops.pair * pairs + flops.image * images + flops.learned * learned
    )
    assert figures["mfu"] == pytest.approx(operations / 1e9)
    losses = {name: value for name, value in figures.items() if name.startswith("loss/")}
    assert losses == {
        f"loss/source {number} {NAMES[number]}": pytest.approx(sum(ids) / len(ids))
        for number, ids in chosen.items()
    }


def log_losses(rank: int, folder: str, answers) -> None:
    """A training process with its own batches."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    _, processor = assemble(BASE / "vision", BASE / "language", max_image_tokens=4, init="config")
    encoded = dataset(processor, RowKind.SFT)
    plan = plan_of(encoded, "grouped")
    clock = Clock()
    telemetry = Telemetry(plan, ItemWork(encoded), clock=clock)
    for one, keys, batch in collated(plan, encoded, SFTCollator(processor), range(3)):
        if one == rank:
            labels = batch["labels"][:, 1:]
            telemetry.losses.add(keys, labels[labels != -100].float())
    telemetry.waited += [0.2, 0.6][rank]
    clock.time += 2.0
    answers.put((rank, telemetry.figures(3)))
    dist.destroy_process_group()


@pytest.mark.integration
def test_processes_log_the_same_figures_of_all(parts, tmp_path: Path) -> None:
    answers = children.SimpleQueue()
    mp.start_processes(log_losses, (str(tmp_path), answers), nprocs=2, start_method="forkserver")
    found = dict(answers.get() for _ in range(2))
    assert found[0] == found[1]
    assert found[0]["data_wait_share"] == pytest.approx(0.3)  # of the one that waited longer
    _, processor = parts
    encoded = dataset(processor, RowKind.SFT)
    expected = defaultdict(list)
    plan = plan_of(encoded, "grouped")
    for _, keys, batch in collated(plan, encoded, list, range(3)):
        for row, item in zip(keys, batch, strict=True):
            expected[row * 3 // ROWS] += [label for label in item["labels"] if label != -100]
    assert plan.world == 2
    for number, ids in expected.items():
        assert found[0][f"loss/source {number} {NAMES[number]}"] == pytest.approx(
            sum(ids) / len(ids)
        )


@pytest.mark.parametrize("batching", ["packed", "grouped"])
def test_the_largest_batch(parts, batching) -> None:
    """Each size by itself, over the batches of all devices."""
    _, processor = parts
    encoded = dataset(processor, RowKind.SFT)
    plan = plan_of(encoded, batching)
    collate = (PackedCollator if batching == "packed" else SFTCollator)(processor)
    batches = [batch for _, _, batch in collated(plan, encoded, collate, range(7))]
    assert BatchShape.largest(plan, ItemWork(encoded), steps=7) == BatchShape(
        rows=4,
        width=max(batch["input_ids"].shape[1] for batch in batches),
        images=max(len(batch.get("pixel_values", [])) for batch in batches),
        learned=max(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches),
    )


@pytest.mark.parametrize("stage", list(PIPELINE))
def test_every_stage_keeps_its_figures(trained, stage) -> None:
    """With one source the mean of its tokens is the loss that the trainer logs."""
    history = read_history(trained.checkpoint(stage))
    assert [entry["step"] for entry in history] == [1, 2]
    for entry in history:
        assert entry["tokens_per_second"] > entry["samples_per_second"] > 0
        assert 0 < entry["data_wait_share"] < 1
        assert 0 <= entry["padding_share"] < 1
        losses = [value for name, value in entry.items() if name.startswith("loss/source ")]
        if len(losses) == 1 and stage is not Stage.DPO:
            assert losses[0] == pytest.approx(entry["loss"], rel=1e-4)
        assert losses
    assert history[1]["tokens_seen"] > history[0]["tokens_seen"] > 0


def test_peak_memory_is_of_this_program_and_not_of_who_started_it() -> None:
    """A program that is started by a large one has that one's peak in `ru_maxrss`."""
    code = """
import subprocess, sys
held = bytearray(2**30)
held[:: 4096] = b"x" * (2**30 // 4096)
code = "from siqvl.training.figures.telemetry import peak_memory; print(peak_memory())"
subprocess.run([sys.executable, "-c", code], check=True, close_fds=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**26 < int(done.stdout) < 2**30
