"""What stands in for a kill: an error once a number of optimizer steps is done."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from transformers import TrainerCallback

from siqvl.training import stage_process


class StopAfter(TrainerCallback):
    """Raises an error, RuntimeError("killed") unless another is given, after a step."""

    def __init__(self, step: int, error: Exception | None = None) -> None:
        self.step = step
        self.error = error or RuntimeError("killed")

    def on_step_end(self, args, state, control, **options) -> None:
        if state.global_step == self.step:
            raise self.error


@contextmanager
def called(callback: TrainerCallback) -> Iterator[None]:
    """Every stage that this process trains in the block has a callback of the test."""
    build = stage_process._build_trainer

    def build_with_it(*arguments):
        trainer = build(*arguments)
        trainer.add_callback(callback)
        return trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_process, "_build_trainer", build_with_it)
        yield


@contextmanager
def stopped_after(step: int) -> Iterator[None]:
    """Every stage that this process trains in the block is killed after a step."""
    with called(StopAfter(step)):
        yield
