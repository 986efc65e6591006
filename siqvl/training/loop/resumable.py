"""Trainers that continue bit for bit from wherever they were killed."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import TrainOutput
from transformers.utils import SAFE_WEIGHTS_NAME

from siqvl.errors import UserError, one_line
from siqvl.training.resuming import Provenance
from siqvl.training.states import (
    CHECKSUMS,
    clear_leftovers,
    disk_full,
    forget_older,
    publish,
    seal,
    staged_state,
    state_step,
    states,
)

logger = logging.getLogger(__name__)


class ResumableStates(Trainer):
    """Hugging Face's Trainer, but that states are whole or absent, and hold all that counts.

    Beside what Hugging Face saves (weights, optimizer, schedule, scaler, random numbers, history)
    a state has what its Trainer forgets: the losses since the last line of the history, and those
    of the whole run. `save_total_limit` states are kept.
    """

    state_copies = 0  # of a state, that others keep on the same disk
    #: Weights that do not learn are left out of states: the parent checkpoint, by whose content
    #: states are named, has them.
    learned_alone = False
    #: Libraries that decide what a step does to the weights, beside those of every stage.
    libraries: tuple[str, ...] = ()
    _staging: Path | None = None  # while a state is being saved
    _continued: Path | None = None  # the state that was loaded, until the run goes on
    _began = 0.0
    _seconds = 0.0  # that earlier processes spent on the steps before

    def write_extra_state(self, folder: Path) -> None:
        """For more that a run needs to continue: write it into `folder`, to be sealed with it.

        Called in every process, after Hugging Face's own files. Safetensors or JSON, not pickle.
        """

    def read_extra_state(self, folder: Path) -> None:
        """Take up what `write_extra_state` wrote.

        Called in every process before `on_train_begin` of the callbacks; weights, optimizer and
        schedule are loaded, and where they belong. Not called when a run starts anew.
        """

    def keep(self, folder: Path, name: str, content: Any) -> None:
        """Write what this process alone knows; a float32 is the same after JSON and back."""
        path = folder / f"{name}-{self.args.process_index}.json"
        path.write_text(json.dumps(content), encoding="utf-8")

    def kept(self, folder: Path, name: str) -> Any:
        """What `keep` wrote in this process."""
        path = folder / f"{name}-{self.args.process_index}.json"
        return json.loads(path.read_text(encoding="utf-8"))

    def extra_state_bytes(self) -> int:
        """About how large `write_extra_state` makes a state, in bytes."""
        return 0

    @property
    def _work_dir(self) -> Path:
        return Path(str(self.args.output_dir))

    def _get_output_dir(self, trial: Any) -> str:
        return os.fspath(self._staging) if self._staging else super()._get_output_dir(trial)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.learned_alone:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            assert output_dir is not None
            held = self._whole_model().state_dict() if state_dict is None else state_dict
            learned = {name: held[name].detach().contiguous() for name in self._learned()}
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_file(learned, Path(output_dir) / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Raises: ValueError: a state has not the weights that learn, all of them and no others."""
        if not self.learned_alone or self.is_fsdp_enabled:  # whose states are whole
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        learned = load_file(Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME)
        if learned.keys() != set(self._learned()):
            raise ValueError(f"{resume_from_checkpoint} has not the weights that learn")
        self._whole_model().load_state_dict(learned, strict=False)

    def _whole_model(self) -> torch.nn.Module:
        return self.accelerator.unwrap_model(self.model)

    def _learned(self) -> list[str]:
        """Names of the weights that learn."""
        weights = self._whole_model().named_parameters()
        return [name for name, weight in weights if weight.requires_grad]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a state in a staging folder, where a kill does no harm; then rename it.

        Raises:
            UserError: the disk is full; the states before are as they were.
        """
        work_dir = self._work_dir
        staged = staged_state(work_dir, self.state.global_step)
        self._staging = staged.parent
        try:
            super()._save_checkpoint(model, trial)
            self._write_progress(staged)
            self.write_extra_state(staged)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                (staged / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle that nobody reads
                Provenance.here(*self.libraries).write(staged)
                seal(staged)
                newest = publish(staged, work_dir)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(staged.parent, ignore_errors=True)
            if not disk_full(error):
                raise
            raise UserError(self._full(work_dir, one_line(error))) from error
        finally:
            self._staging = None
        if self.args.should_save:
            forget_older(newest, keep=self.args.save_total_limit or 1)
        self.accelerator.wait_for_everyone()

    def _full(self, work_dir: Path, reason: str) -> str:
        saved = states(work_dir)
        before = (
            f"but that of step {state_step(saved[0])} is intact: free some space and start again, "
            "which continues from there"
            if saved
            else "and it is the first: free some space and start again"
        )
        return (
            f"{work_dir} is on a full disk: the state of step {self.state.global_step} could not "
            f"be written ({reason}), {before}, or move `output_dir`, which begins anew"
        )

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume: Any) -> Any:
        """Raises: UserError: the states will not fit into the disk."""
        self._began = time.time()
        self._continued = Path(resume) if resume else None
        if self.args.should_save:
            self._check_disk(max_steps - self.state.global_step)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume)
        if self._continued is not None:
            self.read_extra_state(self._continued)
        return prepared

    def _check_disk(self, steps: int) -> None:
        """Refuse before the first of `steps` what would not fit into the disk later."""
        clear_leftovers(self._work_dir)
        kept = self.args.save_total_limit or 1
        # one that is another attempt's too leaves nothing free when it goes
        there = sum((state / CHECKSUMS).stat().st_nlink == 1 for state in states(self._work_dir))
        # while one more is being written, those before are all there
        more = min(max(0, kept + 1 - there), math.ceil(steps / self.args.save_steps))
        more += self.state_copies if steps else 0
        needed, disk = more * self.state_bytes(), self._work_dir.absolute()
        disk = next(path for path in (disk, *disk.parents) if path.exists())
        free = shutil.disk_usage(disk).free
        if needed > free:
            raise UserError(
                f"resumable states of this stage will take {needed / 1e9:.2f} GB ({more} of "
                f"{self.state_bytes() / 1e9:.2f} GB), but {disk} has {free / 1e9:.2f} GB free; "
                f"free some space, move `output_dir`, or lower `kept_states`, which is {kept}"
            )

    def state_bytes(self) -> int:
        """About how large a state is: its weights, and two moments of those that are trained."""
        assert self.model is not None
        trained = [value for value in self.model.parameters() if value.requires_grad]
        weights: list[torch.Tensor] = [*trained]
        if not self.learned_alone or self.is_fsdp_enabled:
            weights = [*self.model.parameters(), *self.model.buffers()]
        each = sum(value.nbytes for value in (*weights, *trained, *trained))
        return each + self.extra_state_bytes()

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        self._continue()
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: int, start: float) -> TrainOutput:
        """Runtime and mean loss are those of the whole run, whatever part this process did."""
        self._continue()  # the last state of a run, whose checkpoint was not written any more
        return super()._finalize_training(trial, num_train_samples, start - self._seconds)

    def _write_progress(self, folder: Path) -> None:
        content = {
            "loss": self._tr_loss.item(),
            "logged_loss": self._total_loss_scalar,
            "logged_step": self._globalstep_last_logged,
            "seconds": self._seconds + time.time() - self._began,
        }
        self.keep(folder, "progress", content)

    def _continue(self) -> None:
        """Take up what Hugging Face's Trainer sets to zero when it resumes."""
        if self._continued is None:
            return
        folder, self._continued = self._continued, None
        content = self.kept(folder, "progress")
        self._tr_loss.fill_(content["loss"])
        self._total_loss_scalar = content["logged_loss"]
        self._globalstep_last_logged = content["logged_step"]
        self._initial_global_step = 0
        self._seconds = content["seconds"]
