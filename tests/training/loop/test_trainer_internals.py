"""Every private name of transformers' Trainer that our trainers override or read.

Private names may change with any release. After an upgrade this test says at once which of them
moved; and whoever takes a new one into use has to write down here what for.
"""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import Trainer

TRAINING = Path(__file__).parents[3] / "siqvl" / "training"

#: Methods that ours take the place of: their parameters, on which ours rely, and what for.
OVERRIDDEN = {
    "_get_grad_norm": ("self model grad_norm", "judge a step between clipping and its update"),
    "_get_num_items_in_batch": ("self batch_samples device", "count pairs, not labelled tokens"),
    "_get_output_dir": ("self trial", "write a state into its staging folder"),
    "_finalize_training": (
        "self trial num_train_samples start_time",
        "runtime and mean loss of the whole run, of a resumed one too",
    ),
    "_load_from_checkpoint": (
        "self resume_from_checkpoint model",
        "read a state that holds only what learns",
    ),
    "_maybe_log_save_evaluate": (
        "self tr_loss grad_norm model trial epoch ignore_keys_for_eval start_time learning_rate",
        "save a state and stop after a step, when the process is told to end",
    ),
    "_prepare_for_training": (
        "self max_steps train_dataloader resume_from_checkpoint",
        "judge the disk, and continue from a state, before the first step",
    ),
    "_prepare_inputs": ("self inputs", "write completions, as TRL's GRPOTrainer does there"),
    "_run_epoch": (
        "self model epoch train_dataloader steps_in_epoch num_update_steps_per_epoch trial "
        "ignore_keys_for_eval start_time resume_from_checkpoint epochs_trained "
        "steps_trained_in_current_epoch",
        "take up what the loop has set to zero since it resumed",
    ),
    "_save": ("self output_dir state_dict", "leave frozen weights out of a state"),
    "_save_checkpoint": ("self model trial", "write a state whole or not at all"),
}

#: Methods that ours call and attributes that they read or set, and what for.
READ = {
    "_get_learning_rate": "name the learning rate of a step that is not finite",
    "_globalstep_last_logged": "go on with the mean loss since the last log",
    "_initial_global_step": "divide the loss of the whole run by all of its steps",
    "_total_loss_scalar": "go on with the mean loss of the whole run",
    "_tr_loss": "go on with the losses since the last log",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def attributes_set(tree: ast.AST) -> set[str]:
    """What `self.name = …` sets anywhere: an instance's attributes, which the class has not."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


TRAINERS = {name for name in dir(Trainer) if is_private(name)} | {
    name for name in attributes_set(ast.parse(inspect.getsource(Trainer))) if is_private(name)
}


def trainer_classes(trees: list[ast.Module]) -> list[ast.ClassDef]:
    """Those that derive from `Trainer`, directly or by one another."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names, found = {"Trainer"}, []
    while True:
        more = [
            one
            for one in classes
            if one not in found and names & {ast.unparse(base) for base in one.bases}
        ]
        if not more:
            return found
        found += more
        names |= {one.name for one in more}


def defined(one: ast.ClassDef) -> Iterator[str]:
    """Names in the body of a class: methods, and attributes of its own."""
    for node in one.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target)
        elif isinstance(node, ast.Assign):
            yield from map(ast.unparse, node.targets)


#: What an attribute is looked up on, where that is a trainer.
OF_A_TRAINER = ("self", "super()", "trainer", "self._trainer", "self.trainer")
#: What a trainer holds, which is not ours either.
HELD = ("state", "control", "accelerator", "args", "callback_handler")


def reached(tree: ast.AST, owners: tuple[str, ...]) -> Iterator[str]:
    """Private names that are read from or set on an owner, `self._x` or `super()._x`."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and is_private(node.attr)
            and ast.unparse(node.value) in owners
        ):
            yield node.attr


def uses(trees: list[ast.Module]) -> tuple[set[str], set[str]]:
    """Private names of `Trainer` that classes override, and those that they only read or set."""
    classes = trainer_classes(trees)
    overridden = {name for one in classes for name in defined(one)} & TRAINERS
    read = {name for one in classes for name in reached(one, OF_A_TRAINER)}
    read |= {name for tree in trees for name in reached(tree, OF_A_TRAINER[2:])}
    return overridden, (read & TRAINERS) - overridden


OURS = [ast.parse(path.read_text(encoding="utf-8")) for path in TRAINING.rglob("*.py")]


def test_all_that_is_used_is_written_down() -> None:
    overridden, read = uses(OURS)
    assert overridden == OVERRIDDEN.keys()
    assert read == READ.keys()


def test_nothing_private_of_what_a_trainer_holds_is_used() -> None:
    owners = tuple(f"{owner}.{held}" for owner in OF_A_TRAINER for held in HELD)
    assert [name for tree in OURS for name in reached(tree, owners)] == []


@pytest.mark.parametrize("name", sorted(OVERRIDDEN.keys() | READ.keys()))
def test_what_is_used_is_still_there(name: str) -> None:
    assert name in TRAINERS, f"transformers' Trainer has no {name} any more"


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_still_takes_the_same(name: str) -> None:
    parameters, _ = OVERRIDDEN[name]
    assert " ".join(inspect.signature(getattr(Trainer, name)).parameters) == parameters


def test_the_search_finds_what_it_should() -> None:
    made = """
class Mixin(Trainer):
    _inner_training_loop = None
    _our_own = 1

    def _save_checkpoint(self, model, trial):
        self._tr_loss = self._our_own
        return super()._get_output_dir(trial)

class Last(Mixin):
    def training_step(self):
        return self._train_batch_size

class Callback(TrainerCallback):
    def on_step_end(self):
        self._save(self.trainer._signature_columns, self._tr_loss)

class Other:
    def _evaluate(self):
        self._sorted_checkpoints()
"""
    overridden, read = uses([ast.parse(made)])
    assert overridden == {"_inner_training_loop", "_save_checkpoint"}
    assert read == {"_tr_loss", "_get_output_dir", "_train_batch_size", "_signature_columns"}
