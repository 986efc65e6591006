"""The reference's log-probabilities: those of the model itself, computed once, kept by content."""

import copy
import shutil
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from siqvl.data.encode import encode_dataset
from siqvl.data.pairs import PreferenceCollator
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Stage
from siqvl.stages import freeze
from siqvl.training.preference import reference_pass as build
from siqvl.training.preference.dpo import PreferenceTrainer
from siqvl.training.preference.reference_pass import Reference, reference_log_probs
from tests.training.changed_recipe import changed
from tests.training.made_pairs import alone


@pytest.fixture(scope="module")
def parts(trained):
    model, processor = load_checkpoint(trained.checkpoint(Stage.COT_SFT))
    dataset, _ = load_prepared(trained.data(Stage.DPO), RowKind.PREFERENCE)
    rows = encode_dataset(dataset, processor, kind=RowKind.PREFERENCE, max_length=512)
    return model.requires_grad_(False), processor, rows


def reference(parts, *, shared: bool = True, **options) -> Reference:
    model, processor, _ = parts
    collate = PreferenceCollator(processor, shared_prompt=shared)
    figures = {"precision": "fp32", "batch_size": 4, "head_chunk": 64} | options
    return Reference(model, collate, **figures)


def computed(folder: Path, parts, items=range(24), *, shared: bool = True, **options) -> np.ndarray:
    rows = parts[2].as_pairs(shared_prompt=shared)
    figures = {name: options.pop(name) for name in ("precision", "batch_size") if name in options}
    return reference_log_probs(
        folder, reference(parts, shared=shared, **figures), rows, items, **options
    )


@pytest.fixture
def passes(monkeypatch) -> list[list[int]]:
    """Which items the model was run over, batch by batch."""
    seen: list[list[int]] = []
    run = Reference.log_probs

    def watched(self, rows, items):
        for batch, found in run(self, rows, items):
            seen.append(batch)
            yield batch, found

    monkeypatch.setattr(Reference, "log_probs", watched)
    return seen


def items_of(passes: list[list[int]]) -> list[int]:
    return [item for batch in passes for item in batch]


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("shared", [True, False])
def test_they_are_those_of_every_side_by_itself(tmp_path, parts, shared) -> None:
    """With pictures, and in batches of pairs of different lengths."""
    model, processor, rows = parts
    model.train()
    found = computed(tmp_path, parts, [0, 3, 5, 7, 11], shared=shared)
    assert model.training
    for item in (0, 3, 5, 7, 11):
        with torch.no_grad():
            sums = [
                alone(model, processor, rows[item], side).double().sum().item()
                for side in ("chosen", "rejected")
            ]
        assert found[item].tolist() == pytest.approx(sums, abs=2e-4)
    assert np.isnan(np.delete(found, [0, 3, 5, 7, 11], axis=0)).all()
    assert found.dtype == np.float32


def test_a_second_run_computes_nothing(tmp_path, parts, passes) -> None:
    first = computed(tmp_path, parts, [3, 3, 1, 8, 5, 2])
    assert sorted(items_of(passes)) == [1, 2, 3, 5, 8]
    lengths = [parts[2].as_pairs(shared_prompt=True).lengths[item] for item in items_of(passes)]
    assert lengths == sorted(lengths, reverse=True)
    passes.clear()
    second = computed(tmp_path, parts, [1, 2, 3, 5, 8])
    assert passes == []
    assert np.array_equal(first, second, equal_nan=True)


def test_a_pair_is_known_by_its_content(tmp_path, parts, passes, trained) -> None:
    """Not by its place: the same rows in another order are found, one that changed is not."""
    model, processor, _ = parts
    before = computed(tmp_path, parts, batch_size=1)
    passes.clear()
    dataset, _ = load_prepared(trained.data(Stage.DPO), RowKind.PREFERENCE)
    order = [(7 * place + 2) % 24 for place in range(24)]
    other = dataset.select(order)

    def change(row: dict) -> dict:
        for number, name in ((0, "chosen"), (1, "rejected"), (2, "prompt")):
            if row["id"] == other[number]["id"]:
                row[name][-1]["content"] += " indeed"
        if row["id"] == other[3]["id"]:
            row["image_hashes"] = ["0" * 64]
        return row

    moved = encode_dataset(other.map(change), processor, kind=RowKind.PREFERENCE, max_length=512)
    found = computed(tmp_path, (model, processor, moved), batch_size=1)
    assert sorted(items_of(passes)) == [0, 1, 2, 3]
    assert np.array_equal(found[4:], before[order[4:]])
    assert (found[:3] != before[order[:3]]).any(axis=1).all()


def test_what_the_model_is_decides_about_the_folder(tmp_path, parts, trained) -> None:
    model, processor, _ = parts
    key = reference(parts).key()
    assert key == reference(parts, batch_size=9, head_chunk=8, workers=1).key()
    moved = tmp_path / "elsewhere"
    shutil.copytree(trained.checkpoint(Stage.COT_SFT), moved)
    assert key == reference((*load_checkpoint(moved), None)).key()

    others = [reference(parts, precision="bf16").key(), reference(parts, shared=False).key()]
    cached = PreferenceCollator(processor, features={})
    others.append(Reference(model, cached, "fp32", batch_size=4, head_chunk=64).key())
    eager, _ = load_checkpoint(moved, attn_implementation="eager")
    others.append(reference((eager, processor, None)).key())
    for weight in (0, -1):
        changed_model = copy.deepcopy(model)
        with torch.no_grad():
            list(changed_model.parameters())[weight].view(-1)[-1] += 1e-6
        others.append(reference((changed_model, processor, None)).key())
    assert len({key, *others}) == len(others) + 1


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another_key(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(path.parent.name.encode(), b"0" * 32))


@pytest.mark.parametrize("damage", [torn, flipped, empty, of_another_key])
def test_a_damaged_shard_is_computed_again(tmp_path, parts, passes, caplog, damage) -> None:
    before = computed(tmp_path, parts, shard_pairs=8)
    assert len(shards(tmp_path)) == 3
    with safe_open(shards(tmp_path)[1], "numpy") as file:
        lost = len(file.get_tensor("log_probs"))
    passes.clear()
    damage(shards(tmp_path)[1])
    after = computed(tmp_path, parts, shard_pairs=8)
    assert len(items_of(passes)) == lost == 8
    assert "is discarded" in caplog.text
    assert np.array_equal(before, after)  # of the very same batches
    passes.clear()
    computed(tmp_path, parts)
    assert passes == []


def test_a_killed_run_keeps_its_shards(tmp_path, parts, passes, monkeypatch) -> None:
    straight = computed(tmp_path / "straight", parts, shard_pairs=8)
    passes.clear()
    written = []

    def write_two(*arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write(*arguments))

    write = build.write_shard
    monkeypatch.setattr(build, "write_shard", write_two)
    with pytest.raises(KeyboardInterrupt):
        computed(tmp_path / "killed", parts, shard_pairs=8)
    monkeypatch.setattr(build, "write_shard", write)
    passes.clear()
    resumed = computed(tmp_path / "killed", parts, shard_pairs=8)
    assert len(items_of(passes)) == 8
    assert np.array_equal(resumed, straight)


def test_two_runs_at_once_do_no_harm(tmp_path, parts, monkeypatch) -> None:
    """The second computes all of the same while the first one is about to write its first shard."""
    straight = computed(tmp_path / "straight", parts, shard_pairs=8)
    write, exits = build.write_shard, []

    def other() -> None:
        torch.set_num_threads(1)  # a fork has none of its parent's threads, and would wait for them
        assert np.abs(computed(tmp_path / "both", parts, shard_pairs=8) - straight).max() < 2e-4

    def meanwhile(*arguments):
        if not exits:
            exits.append(None)
            child = get_context("fork").Process(target=other)
            child.start()
            child.join()
            exits.append(child.exitcode)
        return write(*arguments)

    monkeypatch.setattr(build, "write_shard", meanwhile)
    both = computed(tmp_path / "both", parts, shard_pairs=8)
    assert exits == [None, 0]
    assert np.abs(both - straight).max() < 2e-4


def test_several_processes_share_the_pairs(tmp_path, parts, passes) -> None:
    """Two at a barrier: the second computes its share while the first one waits."""
    alone = computed(tmp_path / "one", parts)
    passes.clear()
    folder = tmp_path / "two"
    second: list[np.ndarray] = []

    def barrier() -> None:
        of_first = items_of(passes)
        second.append(computed(folder, parts, rank=1, world=2, barrier=lambda: None))
        of_second = items_of(passes)[len(of_first) :]
        assert len(of_first) == len(of_second) == 12
        assert not set(of_first) & set(of_second)

    first = computed(folder, parts, rank=0, world=2, barrier=barrier)
    assert np.array_equal(first, second[0])
    assert np.abs(first - alone).max() < 2e-4
    both = {"rank": 1, "world": 2, "shares": [0, 1], "barrier": lambda: None}
    assert np.array_equal(computed(tmp_path / "own", parts, **both), first)  # a machine by itself
    with pytest.raises(ValueError, match="barrier"):
        computed(folder, parts, rank=0, world=2)


def test_weights_without_a_probability_are_refused(tmp_path, parts) -> None:
    model, processor, rows = parts
    broken = copy.deepcopy(model)
    broken.model.language_model.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"gives row \S+ NaN or infinite probabilities in fp32"):
        computed(tmp_path, (broken, processor, rows))
    assert not shards(tmp_path)


def test_a_folder_that_takes_no_files_is_named(tmp_path, parts) -> None:
    (tmp_path / "reference-log-probs").write_text("in the way")
    with pytest.raises(UserError, match=r"reference-log-probs.* cannot be written to"):
        computed(tmp_path, parts, [0])


def trainer_of(trained, folder: Path, **figures):
    recipe = changed(trained.recipe, Stage.DPO, **figures)
    recipe = recipe.model_copy(update={"features_dir": str(folder / "features")})
    dataset, manifest = load_prepared(trained.data(Stage.DPO), RowKind.PREFERENCE)
    model, processor = load_checkpoint(
        trained.checkpoint(Stage.COT_SFT), attn_implementation="eager"
    )
    freeze(model, ["projector", "language_model"])
    stage = recipe.stage(Stage.DPO)
    return PreferenceTrainer.over(
        model,
        processor,
        encode_dataset(dataset, processor, kind=RowKind.PREFERENCE, max_length=stage.max_length),
        stage=stage,
        recipe=recipe,
        manifest=manifest,
        work_dir=folder / "work",
        callbacks=[],
    )


@pytest.mark.parametrize("batching", ["packed", "grouped"])
def test_only_pairs_that_the_plan_visits_are_computed(trained, tmp_path, passes, batching) -> None:
    figures = {"max_steps": 2, "batch_size": 2, "batching": batching, "max_length": 150}
    trainer = trainer_of(trained, tmp_path, **figures)
    plan = trainer.loader.plan
    keys = [key for step in range(2) for key in plan.batch(step)]
    visited = {row for key in keys for row in (key if isinstance(key, tuple) else [key])}
    assert sorted(items_of(passes)) == sorted(visited)
    assert len(visited) < len(trainer.train_dataset)
    if batching == "packed":
        assert plan.pack_length == 300
    item = trainer.train_dataset[min(visited)]
    assert np.isfinite([item["ref_chosen_logps"], item["ref_rejected_logps"]]).all()


def test_a_pair_longer_than_its_packs_is_refused(trained, tmp_path) -> None:
    with pytest.raises(UserError, match=r"pack_length 150 is below the \d+ tokens of the longest"):
        trainer_of(
            trained,
            tmp_path,
            batching="packed",
            shared_prompt=False,
            max_length=150,
            pack_length=150,
        )


def test_kernels_without_masks_of_their_own_take_whole_sides(trained, tmp_path, caplog) -> None:
    model, processor = load_checkpoint(trained.checkpoint(Stage.COT_SFT))
    stage = trained.recipe.stage(Stage.DPO)
    for attention, shared, one_row in (
        ("sdpa", True, False),
        ("flex_attention", False, False),
        ("flash_attention_2", False, True),
    ):
        caplog.clear()
        model.config.text_config._attn_implementation = attention
        collate = PreferenceTrainer.make_collator(model, processor, stage, None)
        assert (collate.shared_prompt, collate.one_row) == (shared, one_row)
        assert ("shared_prompt is left out" in caplog.text) == (not shared)
