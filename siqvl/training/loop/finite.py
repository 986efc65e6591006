"""A run that meets NaN or infinity stops with its weights as they were, and names the rows."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from siqvl.data.batching import Key, items_of
from siqvl.data.loader import TrainingLoader
from siqvl.errors import UserError, one_line
from siqvl.training.loop.resumable import ResumableStates
from siqvl.training.states import state_step, states

logger = logging.getLogger(__name__)

SHOWN = 3  # row ids in the sentence; the file has all of them


class NonFinite(UserError):
    """A loss or gradient norm that is NaN or infinite; the message says in which rows."""


@dataclass
class Seen:
    """What one optimizer step gave, on whichever device that is."""

    step: int
    losses: list[torch.Tensor] = field(default_factory=list)  # one of each micro-batch, scalar
    keys: list[list[Key] | None] = field(default_factory=list)  # of each; None: as the plan says
    grad_norm: torch.Tensor | float = 0.0  # before clipping
    learning_rate: float = math.nan


class FiniteGuard:
    """Judges each optimizer step between its last backward pass and the update.

    Args:
        loader: knows which rows a step has.
        work_dir: where `non-finite-step-<step>.json` goes, beside the resumable states.
        norms: whether gradient norms are judged; a gradient scaler skips infinite ones itself.
    """

    def __init__(self, loader: TrainingLoader, work_dir: Path, *, norms: bool = True) -> None:
        self.loader = loader
        self.work_dir = work_dir
        self.norms = norms
        self._seen: list[Seen] = []

    def loss(
        self, step: int, micro: int, loss: torch.Tensor, keys: list[Key] | None = None
    ) -> None:
        """Take note of a micro-batch's loss, a scalar; steps count from 0.

        Args:
            keys: its rows, where they are others than the plan's.
        """
        if micro == 0:
            self._seen.append(Seen(step))
        self._seen[-1].losses.append(loss.detach())
        self._seen[-1].keys.append(keys)

    def before_update(
        self, step: int, grad_norm: torch.Tensor | float, learning_rate: float = math.nan
    ) -> torch.Tensor:
        """Take note of a step's gradient norm.

        Returns:
            1 if anything of the step is not finite, else 0: a float32 scalar on the device of the
            losses, computed without waiting for it, which fused optimizers take as `found_inf`.
        """
        seen = self._seen[-1]
        assert seen.step == step
        seen.grad_norm, seen.learning_rate = grad_norm, learning_rate
        found = torch.stack([~torch.isfinite(loss) for loss in seen.losses]).any()
        if self.norms:
            found = found | ~torch.isfinite(torch.as_tensor(grad_norm, device=found.device))
        return found.float()

    def look(self) -> None:
        """Judge all steps since the last look; waits for the device.

        Raises:
            NonFinite: one of them had a value that is not finite.
        """
        seen, self._seen = self._seen, []
        for one, values in zip(seen, _values(seen), strict=True):
            judged = values if self.norms else values[:-1]
            if not all(map(math.isfinite, judged)):
                raise NonFinite(self._report(one, values[:-1], values[-1]))

    def _report(self, seen: Seen, losses: list[float], norm: float) -> str:
        """Write the file; returns the sentence."""
        step, rank = seen.step + 1, self.loader.rank  # as the history counts them
        bad = next((micro for micro, loss in enumerate(losses) if not math.isfinite(loss)), None)
        rows = [self._rows(seen, micro) for micro in range(len(losses))]
        saved = states(self.work_dir)
        content = {
            "step": step,
            "micro": bad,
            "rank": rank,
            "loss": None if bad is None else _text(losses[bad]),
            "grad_norm": _text(norm),
            "learning_rate": _text(seen.learning_rate),
            "last_good_state": saved[0].name if saved else None,
            "batches": [
                {"micro": micro, "loss": _text(losses[micro]), "rows": ids}
                for micro, ids in enumerate(rows)
            ],
        }
        suspects = rows[bad] if bad is not None else [one for ids in rows for one in ids]
        what = f"the gradient norm of step {step} is {_text(norm)}"
        if bad is not None:
            what = f"the loss of step {step}, micro-batch {bad}, is {_text(losses[bad])}"
        shown = ", ".join(suspects[:SHOWN]) + (", …" if len(suspects) > SHOWN else "")
        kept = (
            f"state {state_step(saved[0])} is the last good one" if saved else "no state is saved"
        )
        return (
            f"{what} in rows {shown} of process {rank} ({self._write(step, content)}); the weights "
            f"were not touched, and {kept}: look at these rows, lower `learning_rate`, or set "
            "`precision: fp32`"
        )

    def _write(self, step: int, content: dict[str, Any]) -> str:
        several = self.loader.plan.world > 1
        name = f"non-finite-step-{step}" + (f"-rank-{self.loader.rank}" if several else "")
        path = self.work_dir / f"{name}.json"
        try:
            self.work_dir.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:  # the sentence matters more
            return f"{path} could not be written: {one_line(error)}"
        return f"all of them in {path}"

    def _rows(self, seen: Seen, micro: int) -> list[str]:
        """Ids of the rows of a batch, those of a pack one after another."""
        keys = seen.keys[micro]
        if keys is None:
            keys = self.loader.plan.batch(seen.step, micro, self.loader.rank)
        return [self.loader.dataset.row_id(item) for item in items_of(keys)]


class FiniteSteps(ResumableStates):
    """A trainer that follows a plan, and in which no step changes a weight unless it is finite.

    On a CPU every step is judged before its update. Elsewhere that would stall the queue of the
    device, so there the fused optimizer itself passes over a step that is not finite, and the run
    stops at the next step that is logged or saved. No state is saved with such a step behind it.
    """

    loader: TrainingLoader
    guard: FiniteGuard
    _place: tuple[int, int]  # optimizer step and micro-batch, see `PlannedTrainer`

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        norms = self.accelerator.scaler is None
        self.guard = FiniteGuard(self.loader, self._work_dir, norms=norms)
        return super()._prepare_for_training(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.guard.loss(*self._place, loss, self._chosen())
        return loss

    def _chosen(self) -> list[Key] | None:
        """The rows of the batch where the step itself chose them; None: those of the plan."""
        return None

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The norm, which Hugging Face's loop asks for between clipping and the update.

        Raises:
            NonFinite: this step, or one since the last look, was not finite.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if hasattr(norm, "full_tensor"):  # sharded
            norm = norm.full_tensor()
        step = self.state.global_step
        found = self.guard.before_update(step, norm, self._get_learning_rate())
        late = self._late()
        if late and self.accelerator.scaler is None:  # which sets this itself
            self._inner_optimizer().found_inf = found
        if not late or self._is_marked(step + 1):
            self.guard.look()
        return norm

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self.guard.look()
        super()._save_checkpoint(model, trial)

    def _late(self) -> bool:
        """Whether a step may be judged after it is done, because it does nothing if it is bad."""
        skips = getattr(self._inner_optimizer(), "_step_supports_amp_scaling", False)
        return self.args.device.type != "cpu" and skips and not self.is_fsdp_enabled

    def _inner_optimizer(self) -> Any:
        return getattr(self.optimizer, "optimizer", self.optimizer)  # within accelerate's

    def _is_marked(self, step: int) -> bool:
        """Whether the trainer logs or saves after a step, counted from 1."""
        state = self.state
        marks = (step == 1, step % state.logging_steps == 0, step % state.save_steps == 0)
        return any(marks) or step == state.max_steps


def _values(seen: list[Seen]) -> list[list[float]]:
    """Losses, then the gradient norm, of each step; fetched from the device at once."""
    flat = [value for one in seen for value in (*one.losses, one.grad_norm)]
    if not flat:
        return []
    device = seen[0].losses[0].device
    scalars = torch.stack([torch.as_tensor(value, device=device).float() for value in flat])
    parts = scalars.cpu().split([len(one.losses) + 1 for one in seen])
    return [part.tolist() for part in parts]


def _text(value: float) -> float | str:
    """A number, or its name where JSON has none: NaN and the infinities."""
    return value if math.isfinite(value) else str(value)
