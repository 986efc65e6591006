"""A trainer that ends after the step it is in, with a state, when it is asked to stop."""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

import torch
from torch import distributed

from siqvl.errors import UserError
from siqvl.training.loop.finite import FiniteSteps
from siqvl.training.loop.stop_request import Stopped, heeding, requested, standing

logger = logging.getLogger(__name__)


class StoppableSteps(FiniteSteps):
    """A trainer all of whose processes stop at the same step, when one of them is asked to.

    The state is saved between two steps, as any other, so that going on from it changes nothing.
    """

    grace: float | None = None  # seconds that a request leaves; None: as long as it takes
    _group: Any = None  # of all processes, which exchange numbers on their CPUs

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """The steps of a run.

        Raises:
            Stopped: it was asked to.
        """
        standing.begins(self.state.global_step)
        with heeding(self.grace):
            super()._run_epoch(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Called after each step."""
        standing.step = self.state.global_step
        asked = self._any(requested() is not None)
        if asked:
            self.control.should_save = not self._any(self._takes_too_long())
        try:
            super()._maybe_log_save_evaluate(*args, **kwargs)
        except UserError as error:  # the disk is full, but the states before are as they were
            if not asked:
                raise
            logger.warning("%s", error)
        if asked:
            request = requested()
            number = request.number if request else signal.SIGTERM  # of another process
            self._say(signal.Signals(number).name)
            raise Stopped(number)

    def _say(self, name: str) -> None:
        if self.is_world_process_zero():
            done = self.state.global_step, self.state.max_steps
            logger.warning("stopped by %s after step %d of %d", name, *done)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        begin = time.monotonic()
        super()._save_checkpoint(model, trial)
        standing.saved(self.state.global_step, time.monotonic() - begin)

    def _takes_too_long(self) -> bool:
        """Whether a state cannot be kept in what is left of the grace, as it was with the last."""
        request = requested()
        needed = standing.writing + standing.keeping
        if request is None or needed <= request.left:
            return False
        logger.warning(
            "a state takes about %.0f s to be written and kept, and %.0f s are left: none is saved",
            *(needed, max(0.0, request.left)),
        )
        return True

    def _any(self, found: bool) -> bool:
        """Whether one of the processes has found so; all of them know after it."""
        if not distributed.is_initialized() or distributed.get_world_size() == 1:
            return found
        if self._group is None:  # that of the trainer may be on GPUs, which would have to be idle
            self._group = distributed.new_group(backend="gloo")
        number = torch.tensor([int(found)])
        distributed.all_reduce(number, op=distributed.ReduceOp.MAX, group=self._group)
        return bool(number)
