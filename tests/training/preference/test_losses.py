"""Losses over pairs: TRL's own, and DPO's by hand."""

import math
from itertools import chain
from pathlib import Path

import pytest
import torch

from siqvl.data.collate import SFTCollator
from siqvl.data.encode import encode_dataset
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.evaluation.control import control_recipe
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Control, Recipe, Stage
from siqvl.stages import freeze
from siqvl.training.preference.dpo import METRICS, PreferenceTrainer
from siqvl.training.preference.losses import LOSSES, Pairs, preference_loss
from siqvl.training.preference.reference_pass import reference_log_probs
from tests.training.changed_recipe import changed

SIDES = ("chosen", "rejected")
MPO = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}
ALONE = {"sft": 1.0}


def load(trained, stage: Stage):
    model, processor = load_checkpoint(trained.checkpoint(stage), attn_implementation="eager")
    freeze(model, ["projector", "language_model"])
    return model, processor


def dpo(trained, recipe: Recipe, work_dir: Path, stage: Stage = Stage.COT_SFT) -> PreferenceTrainer:
    dataset, manifest = load_prepared(trained.data(Stage.DPO), RowKind.PREFERENCE)
    model, processor = load(trained, stage)
    encoded = encode_dataset(dataset, processor, kind=RowKind.PREFERENCE, max_length=512)
    return PreferenceTrainer.over(
        model,
        processor,
        encoded,
        stage=recipe.stage(Stage.DPO),
        recipe=recipe,
        manifest=manifest,
        work_dir=work_dir,
        callbacks=[],
    )


def moved(trained, recipe: Recipe, work_dir: Path) -> PreferenceTrainer:
    """A trainer whose model is a stage away from its reference, so that no term is constant."""
    trainer = dpo(trained, recipe, work_dir, Stage.PROJECTOR_ALIGNMENT)
    other, _ = load(trained, Stage.COT_SFT)
    trainer.model.load_state_dict(other.state_dict())
    return trainer


class SidesCollator:
    """A batch as TRL's DPOTrainer takes it: all chosen sides, then all rejected ones."""

    def __init__(self, processor) -> None:
        self.sides = SFTCollator(processor)

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        batch = self.sides(
            [
                {
                    "input_ids": item[f"{side}_input_ids"],
                    "labels": item[f"{side}_labels"],
                    "images": item["images"],
                }
                for side in SIDES
                for item in items
            ]
        )
        return batch | {"completion_mask": (batch.pop("labels") != -100).long()}


def trls(trained, trainer: PreferenceTrainer, work_dir: Path):
    """TRL's trainer of the same model, reference, rows and losses."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model, processor = load(trained, Stage.COT_SFT)
    reference, _ = load(trained, Stage.PROJECTOR_ALIGNMENT)
    losses = trainer.stage.loss
    return DPOTrainer(
        model=model,
        ref_model=reference.requires_grad_(False),
        args=DPOConfig(
            output_dir=str(work_dir),
            beta=trainer.stage.beta,
            loss_type=list(losses),
            loss_weights=list(losses.values()),
            max_length=None,
            remove_unused_columns=False,
            bf16=False,
            use_cpu=True,
            report_to="none",
        ),
        train_dataset=Dataset.from_list([trainer.train_dataset[row] for row in range(4)]),
        data_collator=SidesCollator(processor),
        processing_class=processor,
    )


@pytest.mark.parametrize(
    ("losses", "shared"),
    [
        *(({name: 1.0}, True) for name in LOSSES),
        *((loss, shared) for loss in (MPO, ALONE) for shared in (True, False)),
    ],
    ids=str,
)
def test_losses_and_gradients_are_trls(trained, tmp_path: Path, losses: dict, shared: bool) -> None:
    recipe = changed(trained.recipe, Stage.DPO, loss=losses, beta=0.3, shared_prompt=shared)
    ours = moved(trained, recipe, tmp_path / "ours")
    theirs = trls(trained, ours, tmp_path / "theirs")
    items = [ours.train_dataset[row] for row in rows_of(ours, 0)]
    theirs.model.train()
    expected = theirs.compute_loss(theirs.model, theirs.data_collator(items))
    expected.backward()
    found = ours.compute_loss(ours.model, ours.data_collator(items))
    found.backward()
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    largest = 0.0
    for (name, one), other in zip(
        ours.model.named_parameters(), theirs.model.parameters(), strict=True
    ):
        if one.requires_grad:
            assert (one.grad - other.grad).abs().max() < 1e-5, name
            largest = max(largest, float(one.grad.abs().max()))
    assert largest > 1e-2
    logged = {name: values[-1] for name, values in theirs._metrics["train"].items()}
    *sums, count = ours._sums.tolist()
    assert ours.metrics == (("logps/chosen",) if losses == ALONE else METRICS)
    for name, value in zip(ours.metrics, sums, strict=True):
        assert value / count == pytest.approx(logged[name], abs=1e-4), name


def test_likelihood_alone_asks_no_reference_and_computes_no_rejected_side(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the very batches of pairs; nothing is logged that is not known."""
    asked = []

    def watched(*args, **options):
        asked.append(args)
        return reference_log_probs(*args, **options)

    monkeypatch.setattr(f"{PreferenceTrainer.__module__}.reference_log_probs", watched)
    recipe = changed(trained.recipe, Stage.DPO, loss={"sigmoid": 1.0, "sft": 3.0})
    compared = dpo(trained, recipe, tmp_path / "compared")
    assert len(asked) == 1
    control = control_recipe(recipe, Control.LIKELIHOOD)
    alone = dpo(trained, control, tmp_path / "alone")
    assert len(asked) == 1
    steps = range(compared.loader.plan.steps)
    assert [rows_of(alone, step) for step in steps] == [rows_of(compared, step) for step in steps]
    items = [alone.train_dataset[row] for row in rows_of(alone, 0)]
    assert not any("ref_chosen_logps" in item for item in items)
    batch = alone.data_collator(items)
    learned = batch["labels"][batch["labels"] != -100].tolist()
    chosen = [[label for label in item["chosen_labels"] if label != -100] for item in items]
    assert learned == list(chain.from_iterable(chosen))
    assert batch["completion_tokens"] == [count for one in chosen for count in (len(one), 0)]
    alone.train()
    logged = [entry for entry in alone.state.log_history if "loss" in entry]
    assert logged
    for entry in logged:
        assert entry.keys() & METRICS == {"logps/chosen"}
        assert all(math.isfinite(value) for value in entry.values() if isinstance(value, float))


def test_twenty_steps_are_trls(trained, tmp_path: Path) -> None:
    """TRL's two models beside each other, and ours with the log-probabilities computed before."""
    recipe = changed(trained.recipe, Stage.DPO, loss=MPO, max_steps=20, batch_size=2)
    ours = moved(trained, recipe, tmp_path / "ours")
    theirs = trls(trained, ours, tmp_path / "theirs")
    theirs.model.train()
    curves: list[list[float]] = [[], []]
    trainers = (ours, theirs)
    optimizers = [
        torch.optim.AdamW([p for p in one.model.parameters() if p.requires_grad], lr=1e-4)
        for one in trainers
    ]
    for step in range(20):
        items = [ours.train_dataset[row] for row in rows_of(ours, step)]
        for trainer, optimizer, curve in zip(trainers, optimizers, curves, strict=True):
            loss = trainer.compute_loss(trainer.model, trainer.data_collator(items))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            curve.append(loss.item())
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    assert max(curves[0]) - min(curves[0]) > 0.3


def test_metrics_since_the_last_log_survive_an_interruption(trained, tmp_path: Path) -> None:
    recipe = changed(trained.recipe, Stage.DPO)
    ours, later = moved(trained, recipe, tmp_path), moved(trained, recipe, tmp_path)
    ours.write_extra_state(tmp_path)
    later.read_extra_state(tmp_path)
    assert later._sums is None
    with torch.no_grad():
        for step in (0, 1):
            items = [ours.train_dataset[row] for row in rows_of(ours, step)]
            ours.compute_loss(ours.model, ours.data_collator(items))
    ours.write_extra_state(tmp_path)
    later.read_extra_state(tmp_path)
    assert torch.equal(later._sums, ours._sums)
    assert ours._sums[-1] == 8


def rows_of(trainer: PreferenceTrainer, step: int) -> list[int]:
    keys = trainer.loader.plan.batch(step)
    return [row for key in keys for row in (key if isinstance(key, tuple) else [key])]


def test_losses_by_hand() -> None:
    """Two pairs; r is 2 and -1, then -3 and 1, over 4 and 2, then 3 and 6 tokens."""
    pairs = Pairs.of(
        torch.tensor([-8.0, -5.0, -13.0, -6.0], dtype=torch.float64),
        torch.tensor([-10.0, -10.0], dtype=torch.float64),
        torch.tensor([-4.0, -7.0], dtype=torch.float64),
        [4, 2, 3, 6],
    )
    assert pairs.margins.tolist() == [3, -4]

    def softplus(value: float) -> float:
        return math.log1p(math.exp(value))

    expected = {
        "sigmoid": [softplus(-1.5), softplus(2.0)],
        "ipo": [(2 / 4 + 1 / 2 - 1) ** 2, (-3 / 3 - 1 / 6 - 1) ** 2],
        "hinge": [0.0, 3.0],
        "bco_pair": [softplus(-1.0) + softplus(-0.5), softplus(1.5) + softplus(0.5)],
    }
    for name, values in expected.items():
        assert LOSSES[name](pairs, 0.5).tolist() == pytest.approx(values, abs=1e-12), name
    mix = preference_loss(pairs, MPO, 0.5)
    assert mix.item() == pytest.approx(
        0.8 * sum(expected["sigmoid"]) / 2 + 0.2 * sum(expected["bco_pair"]) / 2 + 21 / 7, abs=1e-12
    )
    part = preference_loss(pairs, MPO, 0.5, pairs_in_step=8, tokens_in_step=70)
    assert part.item() == pytest.approx(
        0.8 * sum(expected["sigmoid"]) / 8 + 0.2 * sum(expected["bco_pair"]) / 8 + 21 / 70,
        abs=1e-12,
    )


def test_the_likelihood_term_raises_the_chosen_answers(trained, tmp_path: Path) -> None:
    """The same few steps with and without it: chosen completions end up likelier with it."""
    likely = []
    for name, losses in (("without", {"sigmoid": 1.0}), ("with", {"sigmoid": 1.0, "sft": 2.0})):
        figures = {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-3, "loss": losses}
        trainer = dpo(trained, changed(trained.recipe, Stage.DPO, **figures), tmp_path / name)
        trainer.train()
        likely.append(trainer.state.log_history[-2]["logps/chosen"])
    assert likely[1] > likely[0]
