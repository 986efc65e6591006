"""Preference optimisation on Hugging Face's Trainer: DPO and the losses akin to it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from siqvl.adapters.attach import without_adapters
from siqvl.data.collate import Batch, Features
from siqvl.data.encoded import EncodedDataset
from siqvl.data.features.build_features import features_folder
from siqvl.data.features.shares import own_shares
from siqvl.data.loader import TrainingLoader
from siqvl.data.pairs import PreferenceCollator
from siqvl.device import precision_of
from siqvl.errors import UserError
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import DPOStage
from siqvl.training.loop.planned import PlannedTrainer, training_loader
from siqvl.training.preference.losses import Pairs, preference_loss
from siqvl.training.preference.pair_log_probs import TAKE_ANY_MASK, completion_log_probs, sums
from siqvl.training.preference.reference_pass import Reference, reference_log_probs
from siqvl.training.rows import on_device

logger = logging.getLogger(__name__)

#: Logged as TRL's DPOTrainer logs them: means over pairs; rewards are beta times log-ratios. By the
#: likelihood of chosen completions alone there are no rewards, and rejected ones are not computed.
METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
)


class PreferenceTrainer(PlannedTrainer):
    """Hugging Face's Trainer over planned batches of pairs, which carry the reference's log-probs.

    A loss that is `sft` alone compares with nothing: there is no pass of the reference then, and of
    the same batches the chosen sides alone are computed.

    The loss of an optimizer step is a mean over all of its pairs, however they are divided into
    batches and processes; see `siqvl.training.preference.losses`.
    """

    stage: DPOStage
    loss_is_scaled_for_ga = True
    _sums: torch.Tensor | None = None  # of `metrics` since the last log, and the number of pairs

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """What a batch of `PreferenceCollator` adds to the loss of its step.

        Args:
            return_outputs: return `Pairs` as well.
            num_items_in_batch: pairs of the step, and tokens of their chosen completions; None
                takes the batch for a whole step.
        """
        core = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast():  # for the tower; `model` brings its own
            each = completion_log_probs(model, inputs, core=core, head_chunk=self.stage.head_chunk)
        self.count_losses(-torch.cat(each[::2]))
        found = sums(each)
        # NaN where nothing may compare with it
        unknown = torch.full_like(found[::2], torch.nan)
        pairs = Pairs.of(
            found,
            inputs["ref_chosen_logps"] if self.stage.compares else unknown,
            inputs["ref_rejected_logps"] if self.stage.compares else unknown,
            inputs["completion_tokens"],
        )
        self._count(pairs)
        count, tokens = (None, None) if num_items_in_batch is None else num_items_in_batch  # type: ignore[misc]  # ours, see below
        loss = preference_loss(
            pairs, self.stage.loss, self.stage.beta, pairs_in_step=count, tokens_in_step=tokens
        )
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # DDP takes the mean over processes
        return (loss, pairs) if return_outputs else loss

    def _get_num_items_in_batch(
        self, batch_samples: list[Batch], device: torch.device
    ) -> torch.Tensor | None:
        """[2]: pairs, and tokens of chosen completions, of a step's batches on all processes."""
        if not batch_samples:
            return None
        tokens = [batch["completion_tokens"] for batch in batch_samples]
        pairs = sum(len(counts) // 2 for counts in tokens)
        chosen = sum(sum(counts[::2]) for counts in tokens)
        return self.accelerator.gather(torch.tensor([[pairs, chosen]], device=device)).sum(0)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of METRICS that the loss leaves something to be said of."""
        return METRICS if self.stage.compares else ("logps/chosen",)

    def _count(self, pairs: Pairs) -> None:
        """Add to the sums of `metrics`; on the device, so that nothing waits for it."""
        with torch.no_grad():
            figures = {
                "rewards/chosen": self.stage.beta * pairs.chosen_ratios,
                "rewards/rejected": self.stage.beta * pairs.rejected_ratios,
                "rewards/accuracies": (pairs.margins > 0).float(),
                "rewards/margins": self.stage.beta * pairs.margins,
                "logps/chosen": pairs.chosen,
                "logps/rejected": pairs.rejected,
            }
            counted = [figures[name] for name in self.metrics]
            found = sums([*counted, torch.ones_like(pairs.chosen)])
            self._sums = found if self._sums is None else self._sums + found

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """With `metrics`, over the pairs of all processes since the last log."""
        if "loss" in logs and self._sums is not None:
            *found, pairs = self.accelerator.gather(self._sums[None]).sum(0).tolist()
            logs |= {name: value / pairs for name, value in zip(self.metrics, found, strict=True)}
            self._sums = None
        super().log(logs, *args, **kwargs)

    def write_extra_state(self, folder: Path) -> None:
        super().write_extra_state(folder)
        self.keep(folder, "pairs", None if self._sums is None else self._sums.tolist())

    def read_extra_state(self, folder: Path) -> None:
        super().read_extra_state(folder)
        content = self.kept(folder, "pairs")
        self._sums = None if content is None else torch.tensor(content, device=self.args.device)

    @classmethod
    def make_collator(
        cls,
        model: SiQVLForConditionalGeneration,
        processor: SiQVLProcessor,
        stage: DPOStage,
        features: Features | None,
    ) -> PreferenceCollator:
        attention = model.config.text_config._attn_implementation
        shared = stage.shared_prompt and attention in TAKE_ANY_MASK
        if stage.shared_prompt and not shared:
            logger.warning("shared_prompt is left out: %s takes no mask of its own", attention)
        one_row = attention == "flash_attention_2"  # all that it recognises separate samples in
        return PreferenceCollator(
            *(processor, features),
            shared_prompt=shared,
            one_row=one_row,
            chosen_alone=not stage.compares,
        )

    @classmethod
    def make_loader(
        cls, rows: EncodedDataset, collate: Any, model: SiQVLForConditionalGeneration, **plan: Any
    ) -> TrainingLoader:
        """The batches of pairs, encoded as rows of SFT are: the same prompts and end tokens.

        `model` as it is now is the reference, if the loss needs one: its log-probabilities of all
        pairs of the run are computed here, or read from `features_dir`, see `reference_log_probs`.
        So the first step's loss is ln 2 for `sigmoid` alone. `model` is on its device afterwards.
        A run that goes on from a state comes by here before it loads the state's weights.

        Raises:
            UserError: a pair is too long for `pack_length`, or as `training_loader` and
                `reference_log_probs`.
        """
        stage: DPOStage = plan["stage"]
        rows = rows.as_pairs(shared_prompt=collate.shared_prompt)
        plan["stage"] = stage.model_copy(update={"pack_length": _pack_length(rows, stage)})
        loader = training_loader(rows, collate, **plan)
        state = on_device(model)
        if not stage.compares:
            loader.dataset = rows
            return loader
        reference = Reference(
            model,
            collate,
            precision_of(stage),
            batch_size=stage.reference_batch_size,
            head_chunk=stage.head_chunk,
            workers=stage.loader_workers,
        )
        folder = features_folder(plan["recipe"], plan["recipe"].distributed.nodes)
        with without_adapters(model):  # which have not learnt yet: the same, and quicker
            values = reference_log_probs(
                folder,
                reference,
                rows,
                (item for part in loader.plan.items() for item in part.tolist()),
                rank=state.process_index,
                world=state.num_processes,
                shares=own_shares(folder, state),
                barrier=state.wait_for_everyone,
            )
        loader.dataset = rows.with_reference(values)
        return loader


def _pack_length(rows: EncodedDataset, stage: DPOStage) -> int:
    """Tokens of a pack. `max_length` limits a single side, so it is twice that if not given."""
    longest = max(rows.lengths)
    if stage.batching == "packed" and stage.pack_length and longest > stage.pack_length:
        raise UserError(
            f"pack_length {stage.pack_length} is below the {longest} tokens of the longest pair; "
            "raise it, or lower `max_length`"
        )
    return stage.pack_length or 2 * stage.max_length
