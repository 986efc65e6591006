"""Runs that are killed again and again end with the very weights and curves of undisturbed ones."""

import io
import math
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from siqvl.checkpoint import read_card, read_history
from siqvl.data.manifest import Manifest
from siqvl.recipe import Recipe, Stage
from siqvl.training import stage_process as run
from siqvl.training.loop import resumable
from siqvl.training.loop.launch import launch
from siqvl.training.places import all_states
from siqvl.training.resuming import state_folder
from siqvl.training.stage import train_stage
from siqvl.training.stage_process import StageInputs
from tests.quick import children

STEPS = 8
KINDS = (
    "before the update",
    "after the update",
    "within a file of a state",
    "before the rename",
    "before old states go",
)
#: Each over several epochs of its rows, and with states inside of an epoch and of a logging window.
RUNS = {
    "cached features": (
        Stage.PROJECTOR_ALIGNMENT,
        {"batching": "padded", "cached_features": True, "saving_steps": 2, "batch_size": 8},
    ),
    "packed, accumulated, mean of weights": (
        Stage.VQA_SFT,
        {
            "batching": "packed",
            "batch_size": 1,
            "accumulation": 2,
            "pack_length": 300,
            "max_length": 300,
            "saving_steps": 1,
            "ema": 0.9,
        },
    ),
    "grouped, loader worker": (
        Stage.COT_SFT,
        {"batching": "grouped", "loader_workers": 1, "saving_steps": 1, "batch_size": 12},
    ),
    "pairs": (
        Stage.DPO,
        {
            "batching": "grouped",
            "cached_features": True,
            "saving_steps": 2,
            "batch_size": 8,
            "kept_states": 1,
        },
    ),
}


@dataclass(frozen=True)
class Kill:
    """Where a run ends: at the first chance from an optimizer step on, counted from 1."""

    kind: str
    step: int
    file: int  # which of the files that torch writes is cut in half


def kills(seed: int, count: int) -> list[Kill]:
    """So many kinds, at random steps that grow; the last is in the last step or its state."""
    chance = random.Random(seed)
    kinds = chance.sample(KINDS, count)
    steps = sorted(chance.randint(1, STEPS - 2) for _ in kinds)
    steps[-1] = STEPS
    return [Kill(kind, step, chance.randrange(4)) for kind, step in zip(kinds, steps, strict=True)]


class Killer(TrainerCallback):
    """Ends the process where it is told to, by SIGKILL, and says so in a file."""

    def __init__(self, kill: Kill, trainer, report: Path) -> None:
        self.kill, self.trainer, self.report = kill, trainer, report
        self.written = 0
        self.real_save = torch.save
        torch.save = self.save
        resumable.publish = self.chance("before the rename", resumable.publish)
        resumable.forget_older = self.chance("before old states go", resumable.forget_older)

    def die(self) -> None:
        self.report.write_text(str(self.trainer.state.global_step))
        os.kill(os.getpid(), signal.SIGKILL)

    def due(self, kind: str, step: int) -> bool:
        return self.kill.kind == kind and step >= self.kill.step

    def chance(self, kind: str, real):
        def instead(*arguments, **options):
            if self.due(kind, self.trainer.state.global_step):
                self.die()
            return real(*arguments, **options)

        return instead

    def save(self, content, file, *arguments, **options) -> None:
        if self.due("within a file of a state", self.trainer.state.global_step):
            if self.written == self.kill.file:
                whole = io.BytesIO()
                self.real_save(content, whole)
                Path(file).write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
                self.die()
            self.written += 1
        self.real_save(content, file, *arguments, **options)

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
        if self.due("before the update", state.global_step + 1):
            self.die()

    def on_optimizer_step(self, args, state, control, **kwargs) -> None:
        if self.due("after the update", state.global_step + 1):
            self.die()


def noisy(trainer) -> None:
    """The shipped models have no dropout, so without this no step would draw a random number."""
    projector = trainer.model.model.multi_modal_projector
    projector.register_forward_hook(
        lambda module, args, out: torch.nn.functional.dropout(out, 0.1, training=module.training)
    )


def train(
    stage: Stage, recipe: Recipe, common: dict, output: Path, kill: Kill | None, report: Path
):
    """The body of a child process; what it writes goes to a file beside the report."""
    with report.with_suffix(".log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    build = run._build_trainer

    def noisy_and_doomed(*arguments):
        trainer = build(*arguments)
        noisy(trainer)
        if kill is not None:
            trainer.add_callback(Killer(kill, trainer, report))
        return trainer

    run._build_trainer = noisy_and_doomed
    train_stage(stage, recipe, **common, output=output)


def doomed_rank(inputs: StageInputs) -> None:
    """The body of one of two processes; the second dies when step 4's state lacks its part."""
    build = run._build_trainer

    def doomed(*arguments):
        trainer = build(*arguments)
        write = trainer._write_progress

        def die(folder: Path) -> None:
            if trainer.state.global_step == 4 and trainer.args.process_index == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            write(folder)

        trainer._write_progress = die
        return trainer

    run._build_trainer = doomed
    run.train(inputs)


def in_a_child(*arguments) -> int:
    """Exit code of `train(*arguments)` in a process of its own."""
    child = children.Process(target=train, args=arguments)
    child.start()
    end = time.monotonic() + 120
    # no `join`, which would wait for the loader workers too that a killed child leaves behind
    while child.exitcode is None:
        if time.monotonic() > end:
            child.kill()
            pytest.fail("the child hangs")
        time.sleep(0.02)
    return child.exitcode


def with_options(recipe: Recipe, stage: Stage, options: dict) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["stages"][stage.value] |= {"max_steps": STEPS, "logging_steps": 3, **options}
    return Recipe.model_validate(content)


def curves(output: Path) -> list[dict]:
    """The history without figures that a clock decides."""
    names = ("step", "epoch", "loss", "grad_norm", "learning_rate", "rewards/", "logps/")
    names += ("tokens_seen", "images_seen")
    return [
        {name: value for name, value in entry.items() if name.startswith(names)}
        for entry in read_history(output)
    ]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("count", "seed"),
    [
        # every kind in one of the runs; one of them dies with its last state saved
        pytest.param(2, 12, id="two kills"),
        # two of the four runs die with their last state saved, and have no step left to do
        pytest.param(5, 20, id="every kill", marks=pytest.mark.drill),
    ],
)
@pytest.mark.parametrize("name", RUNS)
def test_killed_runs_end_like_undisturbed_ones(
    trained, tmp_path: Path, name: str, count: int, seed: int
) -> None:
    stage, options = RUNS[name]
    recipe = with_options(trained.recipe, stage, options)
    common = {"data": trained.data(stage), "checkpoint": trained.parent(stage)}
    straight, killed, report = (tmp_path / part for part in ("straight", "killed", "report"))
    assert in_a_child(stage, recipe, common, straight, None, report) == 0

    for kill in kills(seed + list(RUNS).index(name), count):
        before = [state.name for work in tmp_path.glob(".killed.*") for state in all_states(work)]
        assert in_a_child(stage, recipe, common, killed, kill, report) == -signal.SIGKILL
        print(
            f"\n{stage.value:20} {kill.kind:25} from step {kill.step}: died at step "
            f"{report.read_text()}, having begun at {before[0] if before else 'nothing'}",
            end="",
        )
        assert not killed.exists()
    assert in_a_child(stage, recipe, common, killed, None, report) == 0

    assert (killed / "model.safetensors").read_bytes() == (
        straight / "model.safetensors"
    ).read_bytes()
    assert curves(killed) == curves(straight)
    assert [entry["step"] for entry in curves(straight)] == [1, 3, 6]
    assert all(math.isfinite(entry["loss"]) for entry in curves(straight))
    losses = [read_card(output).metrics["train_loss"] for output in (killed, straight)]
    assert losses[0] == losses[1]
    assert not list(tmp_path.glob(".killed.*"))


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
def test_one_of_two_processes_dies_in_a_save(trained, tmp_path: Path) -> None:
    stage = Stage.PROJECTOR_ALIGNMENT
    recipe = with_options(trained.recipe, stage, {"max_steps": 6, "saving_steps": 2})
    content = recipe.model_dump(mode="json")
    content["distributed"] |= {"enabled": True, "processes": 2}
    recipe = Recipe.model_validate(content)
    common = {"data": trained.data(stage), "checkpoint": None}
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train_stage(stage, recipe, **common, output=straight)

    folder = state_folder(killed, recipe, stage, None, Manifest.read(trained.data(stage)))
    inputs = StageInputs(stage, recipe, output=killed, states=folder, log=None, **common)
    # torch names one of those it finds dead: the killed one, or the one whose connection that reset
    with pytest.raises(RuntimeError, match=r"training process [01] failed"):
        launch(doomed_rank, inputs, recipe.distributed)
    (work_dir,) = tmp_path.glob(".killed.*")
    assert [state.name for state in all_states(work_dir)] == ["checkpoint-2"]
    files = {path.name for path in all_states(work_dir)[0].iterdir()}
    for rank in (0, 1):
        assert {f"rng_state_{rank}.pth", f"progress-{rank}.json"} <= files

    train_stage(stage, recipe, **common, output=killed)
    assert (killed / "model.safetensors").read_bytes() == (
        straight / "model.safetensors"
    ).read_bytes()
    assert curves(killed) == curves(straight)
