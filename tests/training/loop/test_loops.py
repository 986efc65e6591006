"""The loops themselves: losses that are what they should be, and a run that can be interrupted."""

import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from siqvl.checkpoint import read_history
from siqvl.data.collate import SFTCollator
from siqvl.data.encode import encode_dataset
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.model.assemble import load_checkpoint
from siqvl.model.configuration import SiQVLConfig
from siqvl.recipe import Recipe, Stage
from siqvl.stages import freeze
from siqvl.training.loop.arguments import trainer_arguments
from siqvl.training.preference.dpo import METRICS, PreferenceTrainer
from siqvl.training.stage import train_stage
from tests.training.changed_recipe import changed
from tests.training.made_trainer import made_trainer
from tests.training.stopping import stopped_after


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


BATCHINGS = pytest.mark.parametrize("batching", ["packed", "grouped", "padded"])


@BATCHINGS
def test_first_loss_is_plain_cross_entropy_over_answers(
    trained, tmp_path: Path, batching: str
) -> None:
    """Against each row of the first step by itself, summed by hand in float64."""
    recipe = changed(
        trained.recipe, Stage.VQA_SFT, max_steps=1, learning_rate=1e-9, batching=batching
    )
    trainer = made_trainer(trained, recipe, tmp_path)
    keys = trainer.loader.plan.batch(0)
    rows = [row for key in keys for row in (key if isinstance(key, tuple) else [key])]
    alone = SFTCollator(trainer.data_collator.processor)
    model, total, count = trainer.model.eval(), 0.0, 0
    for row in rows:
        batch = alone([trainer.train_dataset[row]])
        labels = batch.pop("labels")[0, 1:]
        with torch.no_grad():
            scores = model(**batch).logits[0, :-1].double().log_softmax(-1)
        learnt = labels != -100
        total -= scores[learnt].gather(-1, labels[learnt].unsqueeze(-1)).sum().item()
        count += int(learnt.sum())
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(total / count, abs=1e-4)


@BATCHINGS
def test_accumulated_batches_learn_like_one_large_batch(
    trained, tmp_path: Path, batching: str
) -> None:
    """Optimizer steps hold the same rows however they are divided, so the losses are the same."""
    common = {"max_steps": 3, "batching": batching}
    large = changed(trained.recipe, Stage.VQA_SFT, batch_size=4, accumulation=1, **common)
    small = changed(trained.recipe, Stage.VQA_SFT, batch_size=1, accumulation=4, **common)
    first, second = (
        made_trainer(trained, large, tmp_path / "a"),
        made_trainer(trained, small, tmp_path / "b"),
    )
    first.train()
    second.train()
    assert losses(second) == pytest.approx(losses(first), abs=2e-4)


def test_one_batch_can_be_learnt_by_heart(trained, tmp_path: Path) -> None:
    recipe = changed(
        trained.recipe,
        Stage.VQA_SFT,
        max_steps=40,
        batch_size=24,
        batching="padded",  # one batch is the whole epoch
        learning_rate=2e-3,
    )
    trainer = made_trainer(trained, recipe, tmp_path)
    trainer.train()
    assert losses(trainer)[-1] < 0.2 < losses(trainer)[0]


def rows_of(trainer, step: int) -> list[int]:
    keys = trainer.loader.plan.batch(step)
    return [row for key in keys for row in (key if isinstance(key, tuple) else [key])]


def dpo(trained, recipe: Recipe, work_dir: Path):
    dataset, manifest = load_prepared(trained.data(Stage.DPO), RowKind.PREFERENCE)
    model, processor = load_checkpoint(
        trained.checkpoint(Stage.COT_SFT), attn_implementation="eager"
    )
    freeze(model, ["projector", "language_model"])
    stage = recipe.stage(Stage.DPO)
    encoded = encode_dataset(
        dataset, processor, kind=RowKind.PREFERENCE, max_length=stage.max_length
    )
    return PreferenceTrainer.over(
        model,
        processor,
        encoded,
        stage=stage,
        recipe=recipe,
        manifest=manifest,
        work_dir=work_dir,
        callbacks=[],
    )


@BATCHINGS
def test_dpo_starts_at_ln_2_and_a_swapped_pair_flips_the_margin(
    trained, tmp_path: Path, batching: str
) -> None:
    figures = {"max_steps": 8, "batch_size": 4, "learning_rate": 1e-4, "batching": batching}
    if batching == "packed":
        figures |= {"max_length": 150, "batch_size": 2}
    trainer = dpo(trained, changed(trained.recipe, Stage.DPO, **figures), tmp_path)
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses(trainer)[-1] < losses(trainer)[0] - 0.01

    items = [trainer.train_dataset[row] for row in rows_of(trainer, 0)]
    other = {"chosen": "rejected", "rejected": "chosen"}
    swapped = [
        {re.sub("chosen|rejected", lambda side: other[side[0]], name): item[name] for name in item}
        for item in items
    ]
    margins = []
    for pairs in (items, swapped):
        with torch.no_grad():
            _, found = trainer.compute_loss(
                trainer.model, trainer.data_collator(pairs), return_outputs=True
            )
        margins.append(found.margins)
    assert margins[0].abs().max() > 0.01
    assert (margins[0] + margins[1]).abs().max() < 1e-3


@pytest.mark.parametrize("batching", ["packed", "grouped"])
def test_accumulated_pairs_learn_like_one_large_batch(
    trained, tmp_path: Path, batching: str
) -> None:
    """A step's loss is a mean over its pairs, and over its chosen tokens, however it is divided."""
    common = {"max_steps": 3, "batching": batching, "learning_rate": 1e-3}
    common |= {"loss": {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}}
    if batching == "packed":
        common |= {"max_length": 150, "pack_length": 240}
    logs = []
    for name, division in (
        ("large", {"batch_size": 4, "accumulation": 1}),
        ("small", {"batch_size": 1, "accumulation": 4}),
    ):
        trainer = dpo(trained, changed(trained.recipe, Stage.DPO, **common, **division), tmp_path)
        trainer.train()
        logs.append([entry for entry in trainer.state.log_history if "loss" in entry])
        if batching == "packed" and name == "small":
            packs = [trainer.loader.plan.batch(0, micro) for micro in range(4)]
            assert len({len(pack) for (pack,) in packs}) > 1  # or any mean would do
    for large, small in zip(*logs, strict=True):
        assert small["loss"] == pytest.approx(large["loss"], abs=2e-5)
        assert small["grad_norm"] == pytest.approx(large["grad_norm"], rel=1e-3)
    for name in METRICS:  # of the last step: of the first they are nothing but rounding
        assert small[name] == pytest.approx(large[name], abs=2e-3)
        assert large[name] != 0


INTERRUPTED = [
    (Stage.VQA_SFT, {"batching": "packed", "batch_size": 1, "pack_length": 600}),
    (Stage.VQA_SFT, {"batching": "grouped", "accumulation": 2, "loader_workers": 1}),
    (Stage.VQA_SFT, {"batching": "packed", "batch_size": 1, "cached_features": True}),
    (Stage.DPO, {"batching": "grouped", "cached_features": True}),
]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("stage", "options"), INTERRUPTED, ids=["packed", "grouped", "cached features", "dpo"]
)
def test_an_interrupted_stage_continues_to_the_same_weights(
    trained, tmp_path: Path, stage: Stage, options: dict
) -> None:
    """Over several epochs of 24 rows, so that the states lie inside of one."""
    recipe = changed(trained.recipe, stage, max_steps=6, saving_steps=2, **options)
    common = {"data": trained.data(stage), "checkpoint": trained.parent(stage)}
    train_stage(stage, recipe, **common, output=tmp_path / "straight")

    with stopped_after(5), pytest.raises(RuntimeError, match="killed"):
        train_stage(stage, recipe, **common, output=tmp_path / "resumed")
    assert not (tmp_path / "resumed").exists()
    assert list(tmp_path.glob(".resumed.training-*/attempt-*/checkpoint-4"))

    train_stage(stage, recipe, **common, output=tmp_path / "resumed")
    kept = list((Path(recipe.output_dir) / "features").rglob("*.safetensors"))
    assert kept or not recipe.stage(stage).cached_features
    straight = load_file(tmp_path / "straight" / "model.safetensors")
    for name, value in load_file(tmp_path / "resumed" / "model.safetensors").items():
        assert torch.equal(value, straight[name]), name
    # the steps before the interruption are in the history, those that were repeated only once
    straight_history, resumed_history = (
        [(entry["step"], entry["loss"]) for entry in read_history(tmp_path / name)]
        for name in ("straight", "resumed")
    )
    assert [step for step, _ in resumed_history] == [1, 2, 3, 4, 5, 6]
    assert resumed_history == straight_history


def test_fp16_without_a_gpu_is_refused(trained, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    recipe = changed(trained.recipe, Stage.VQA_SFT, precision="fp16", allow_fp16=True)
    with pytest.raises(UserError, match="fp16 needs a CUDA GPU"):
        trainer_arguments(recipe.stage(Stage.VQA_SFT), recipe, SiQVLConfig(), tmp_path, 200)


def test_the_recipe_reaches_the_trainer(trained, tmp_path: Path) -> None:
    recipe = changed(
        trained.recipe,
        Stage.VQA_SFT,
        max_steps=200,
        warmup_ratio=0.03,
        weight_decay=0.1,
        adam_beta2=0.95,
        precision="bf16",
        gradient_checkpointing=True,
    )
    arguments = trainer_arguments(recipe.stage(Stage.VQA_SFT), recipe, SiQVLConfig(), tmp_path, 200)
    assert arguments["warmup_steps"] == 6
    assert arguments["weight_decay"] == 0.1
    assert arguments["adam_beta2"] == 0.95
    assert arguments["bf16"]
    assert not arguments["fp16"]
    assert arguments["activation_checkpointing"]


def test_rows_that_are_too_long_are_counted(trained, tmp_path: Path, caplog) -> None:
    stage = Stage.COT_SFT
    recipe = changed(trained.recipe, stage, max_length=90, max_steps=1)
    card = train_stage(
        stage,
        recipe,
        data=trained.data(stage),
        checkpoint=trained.parent(stage),
        output=tmp_path / "out",
    )
    assert card.metrics["rows_left_out"] > 0
    assert card.metrics["rows"] + card.metrics["rows_left_out"] == 48
    left_out = int(card.metrics["rows_left_out"])
    assert f"{left_out} of 48 rows were left out: longer than max_length" in caplog.text
    nothing = changed(trained.recipe, stage, max_length=10)
    with pytest.raises(UserError, match="fits into max_length 10"):
        train_stage(
            stage,
            nothing,
            data=trained.data(stage),
            checkpoint=trained.parent(stage),
            output=tmp_path / "never",
        )
