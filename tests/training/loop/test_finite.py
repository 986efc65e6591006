"""A step that is not finite changes nothing, and the run that stops there says in which rows."""

import json
import math
import pickle
import random
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from siqvl.recipe import Stage
from siqvl.training.loop.finite import FiniteGuard, NonFinite
from siqvl.training.states import damage, last_good_state
from tests.training.changed_recipe import changed
from tests.training.made_trainer import made_trainer

STEPS = 8


class MadeUp(dict):
    """Features of any picture, drawn by its hash: what a tower would give, or not quite."""

    def __missing__(self, image_hash: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(image_hash[:8], 16))
        self[image_hash] = torch.randn(64, 128, generator=generator)
        return self[image_hash]


def trainer_of(trained, work_dir: Path, features=None, callbacks=(), **values):
    """Four batches of two rows in three steps and more; a rate that knows no end of the run."""
    common = {
        "max_steps": STEPS,
        "batch_size": 2,
        "accumulation": 2,
        "saving_steps": 1,
        "lr_schedule": "constant",
        "warmup_ratio": 0.0,
        "batching": "padded",
    }
    recipe = changed(trained.recipe, Stage.VQA_SFT, **(common | values))
    features = MadeUp() if features is None else features
    return made_trainer(trained, recipe, work_dir, features=features, callbacks=callbacks)


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def items_of(trainer, step: int, micro: int) -> list[int]:
    keys = trainer.loader.plan.batch(step, micro)
    return [item for key in keys for item in (key if isinstance(key, tuple) else [key])]


def poison(trainer) -> tuple[int, int]:
    """Puts one NaN into one picture; returns the step and micro-batch that meet it first."""
    rows, features = trainer.train_dataset, trainer.data_collator.features
    seen: set[str] = set()
    for step in range(STEPS):
        for micro in (0, 1):
            new = [h for i in items_of(trainer, step, micro) for h in rows.image_hashes(i)]
            if step >= 1 and micro == 1 and (fresh := [h for h in new if h not in seen]):
                features[fresh[0]] = features[fresh[0]].clone()
                features[fresh[0]][3, 5] = math.nan
                return step, micro
            seen |= set(new)
    raise AssertionError("no picture is new after the first step")


@pytest.mark.parametrize("batching", ["padded", "packed"])
def test_a_nan_in_a_picture_stops_before_the_update(trained, tmp_path: Path, batching) -> None:
    """The weights are those of an undisturbed run up to there; the file names the batch's rows."""
    values = {"batching": batching, "batch_size": 1 if batching == "packed" else 2}
    values |= {"pack_length": 120, "max_length": 120}
    trainer = trainer_of(trained, tmp_path / "poisoned", **values)
    step, micro = poison(trainer)
    with pytest.raises(NonFinite) as caught:
        trainer.train()
    undisturbed = trainer_of(trained, tmp_path / "clean", **(values | {"max_steps": step}))
    undisturbed.train()
    assert same(weights(trainer), weights(undisturbed))

    path = tmp_path / "poisoned" / f"non-finite-step-{step + 1}.json"
    report = json.loads(path.read_text())
    rows = trainer.loader.dataset
    expected = [[rows.row_id(item) for item in items_of(trainer, step, m)] for m in (0, 1)]
    assert [batch["rows"] for batch in report["batches"]] == expected
    assert math.isfinite(report["batches"][0]["loss"])
    assert report["batches"][1]["loss"] == "nan"
    assert (report["step"], report["micro"], report["rank"]) == (step + 1, micro, 0)
    assert (report["loss"], report["grad_norm"]) == ("nan", "nan")
    assert report["learning_rate"] == trainer.stage.learning_rate
    assert report["last_good_state"] == f"checkpoint-{step}"
    state = last_good_state(tmp_path / "poisoned")
    assert state is not None
    assert state.name == f"checkpoint-{step}"
    assert damage(state) is None
    message = str(caught.value)
    assert message.startswith(f"the loss of step {step + 1}, micro-batch 1, is nan in rows ")
    assert f"{', '.join(expected[1][:3])}" in message
    assert str(path) in message
    assert "the weights were not touched" in message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message


def test_an_infinite_gradient_with_a_finite_loss_stops_too(trained, tmp_path: Path) -> None:
    trainer = trainer_of(trained, tmp_path / "a")
    weight = trainer.model.model.multi_modal_projector.linear.weight
    calls = []

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return gradient * math.inf if len(calls) == 4 else gradient

    weight.register_hook(overflow)  # the fourth backward pass is the second of step 2
    with pytest.raises(NonFinite, match=r"the gradient norm of step 2 is (nan|inf) in rows"):
        trainer.train()
    undisturbed = trainer_of(trained, tmp_path / "b", max_steps=1)
    undisturbed.train()
    assert same(weights(trainer), weights(undisturbed))
    report = json.loads((tmp_path / "a" / "non-finite-step-2.json").read_text())
    assert report["micro"] is None
    assert all(math.isfinite(batch["loss"]) for batch in report["batches"])
    assert [len(batch["rows"]) for batch in report["batches"]] == [2, 2]


# As on a GPU, where no step waits to be judged


class Track(TrainerCallback):
    """The weights after every step."""

    def __init__(self) -> None:
        self.after: list[dict[str, torch.Tensor]] = []

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        self.after.append({n: v.clone() for n, v in model.state_dict().items()})


def test_late_judgement_passes_over_the_step_and_saves_nothing_after_it(
    trained, tmp_path: Path, monkeypatch
) -> None:
    values = {"logging_steps": 8, "saving_steps": 6, "kept_states": 8}
    track = Track()
    trainer = trainer_of(trained, tmp_path / "late", callbacks=[track], **values)
    monkeypatch.setattr(type(trainer), "_late", lambda self: True)
    step, _ = poison(trainer)
    assert step < 5
    with pytest.raises(NonFinite, match=f"the loss of step {step + 1}, micro-batch 1, is nan"):
        trainer.train()
    assert len(track.after) == 5  # it was found out before the update of step 6, which is saved
    assert same(track.after[step], track.after[step - 1])
    for state in track.after:
        assert all(torch.isfinite(value).all() for value in state.values())
    assert last_good_state(tmp_path / "late") is None


def test_late_judgement_changes_no_bit_of_a_good_run(trained, tmp_path: Path, monkeypatch) -> None:
    values = {"logging_steps": 3, "saving_steps": 4, "max_steps": 5}
    each_step = trainer_of(trained, tmp_path / "a", **values)
    each_step.train()
    late = trainer_of(trained, tmp_path / "b", **values)
    monkeypatch.setattr(type(late), "_late", lambda self: True)
    late.train()
    assert late.optimizer.optimizer.found_inf == 0
    assert same(weights(late), weights(each_step))


# The guard alone


def test_what_the_guard_finds_is_what_math_says(trained, tmp_path: Path) -> None:
    loader = trainer_of(trained, tmp_path).loader
    chance = random.Random(0)
    values = [0.0, 1e-38, -3.0, 3e38, math.inf, -math.inf, math.nan]
    for norms in (True, False):
        for _ in range(60):
            guard = FiniteGuard(loader, tmp_path, norms=norms)
            bad = []
            for step in range(3):
                losses = [chance.choice(values[:4] * 4 + values) for _ in range(2)]
                norm = abs(chance.choice(values[:4] * 4 + values))
                for micro, loss in enumerate(losses):
                    guard.loss(step, micro, torch.tensor(loss))
                found = guard.before_update(step, torch.tensor(norm))
                judged = [*losses, norm] if norms else losses
                bad.append(not all(map(math.isfinite, judged)))
                assert found.item() == bad[-1]
            if any(bad):
                with pytest.raises(NonFinite, match=f"of step {bad.index(True) + 1}[ ,]"):
                    guard.look()
            else:
                guard.look()
            guard.look()  # nothing is judged twice


def test_a_report_that_cannot_be_written_does_not_hide_the_reason(trained, tmp_path: Path) -> None:
    loader = trainer_of(trained, tmp_path).loader
    (tmp_path / "file").write_text("")
    guard = FiniteGuard(loader, tmp_path / "file")
    guard.loss(0, 0, torch.tensor(math.nan))
    guard.before_update(0, torch.tensor(1.0))
    with pytest.raises(NonFinite, match=r"is nan in rows .* could not be written: .*the weights"):
        guard.look()
