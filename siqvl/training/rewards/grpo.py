"""Group-relative policy optimisation (GRPO, arXiv:2402.03300) on TRL's trainer.

TRL computes advantages and loss, and logs them. Ours is what comes before: the questions of every
step, from a plan; prompts, as all other stages and the benchmarks encode them; pictures, as
features of the frozen tower, computed once; completions, by our loop over tokens. And what comes
after: states from which a run goes on bit for bit.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head, split_tensor_dict

from siqvl.data.batching import Key
from siqvl.data.collate import Features
from siqvl.data.encoded import IGNORED, EncodedDataset
from siqvl.data.manifest import Manifest
from siqvl.device import precision_of
from siqvl.generation.loop import end_ids
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import Recipe, RewardStage
from siqvl.training.figures.work import ItemWork
from siqvl.training.loop.planned import PlannedTrainer, training_loader
from siqvl.training.rewards.different import PASS, Different, passes_over
from siqvl.training.rewards.dynamic_sampling import Draw, Group, draw_groups
from siqvl.training.rewards.earned import Earned
from siqvl.training.rewards.grpo_arguments import grpo_arguments
from siqvl.training.rewards.questions import Questions
from siqvl.training.rewards.rollout_figures import RolloutFigures
from siqvl.training.rewards.rollouts import rollouts


class RewardTrainer(PlannedTrainer, GRPOTrainer):
    """TRL's GRPOTrainer over planned questions, with rollouts and pictures of our own.

    Every optimizer step writes its own completions, so that the policy which is trained is the one
    that wrote them, and no ratio between the two is ever clipped.
    """

    libraries = ("trl",)
    stage: RewardStage
    telemetry: RolloutFigures
    questions: Questions
    earned: Earned
    _ends: list[int]  # tokens that end a completion
    _seed: int
    _of: Sequence[int] = ()  # the question of each completion that is being computed
    _shown: dict[int, torch.Tensor]  # pictures of the step's questions: features of the tower
    _written: list[list[int]]  # the completions of `_of`
    _batches: list[dict[str, Any]]  # what was written for a step, divided
    _learning: list[bool] | None = None  # which completions have a gradient; None: all

    @classmethod
    def over(
        cls,
        model: SiQVLForConditionalGeneration,
        processor: SiQVLProcessor,
        dataset: EncodedDataset,
        *,
        stage: Any,
        recipe: Recipe,
        manifest: Manifest,
        work_dir: Path,
        callbacks: list[TrainerCallback],
        features: Features | None = None,
    ) -> Self:
        """A trainer of `model` over encoded questions, as `stage` says; else as `PlannedTrainer`.

        `model` as it is now is what the KL term keeps close to, if there is one.
        """
        asked = stage.batch_size // stage.group_size * stage.sampling_rounds
        pool = stage.model_copy(update={"batch_size": asked})
        rows = dataset if features is None else dataset.with_hashes()
        loader = training_loader(rows, dict, stage=pool, recipe=recipe, manifest=manifest)
        reference = _reference(model) if stage.beta else None
        ends = end_ids(model, processor.tokenizer.eos_token_id)
        earned = Earned(stage, frozenset(ends))
        functions, weights = earned.functions()
        told = (stage, recipe, model.config, work_dir, loader.plan.steps, weights)
        trainer = cls(
            model=model,
            args=GRPOConfig(**grpo_arguments(*told)),
            reward_funcs=[*functions],
            train_dataset=Dataset.from_dict({"prompt": [""]}),  # TRL insists; ours come by the plan
            processing_class=processor,
            callbacks=callbacks,
        )
        trainer.follow(model, loader, stage, RolloutFigures(loader.plan, ItemWork(rows)))
        trainer.questions = Questions(loader, stage, processor, features)
        trainer.earned, trainer._ends, trainer._seed = earned, ends, recipe.seed
        if reference is not None:
            add_fused_lm_head(reference, temperature=stage.sampling_temperature)
            trainer.beta = stage.beta
            trainer.ref_model = reference.to(trainer.args.device)  # type: ignore[arg-type]  # untyped
        return trainer

    def get_train_dataloader(self) -> DataLoader:
        """The questions of each batch; TRL takes those of a step with its first batch."""
        return DataLoader(self.questions, batch_size=1, collate_fn=lambda batches: batches[0])

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Write and judge the completions of a step with its first batch, then divide them.

        TRL's own shuffles them over the step's batches, which changes nothing where all of them
        make one update, and counts batches from 0 again when a run is resumed.
        """
        micro = self._place[1]
        if micro == 0:
            whole = self._generate_and_score_completions(generation_batch)
            self._batches = split_tensor_dict(whole, self.loader.plan.accumulation)
        return self._batches[micro]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's, of the groups that the step learns from, with the question of each completion.

        Args:
            inputs: a row for each question that the step may ask.
        """
        rows = {row["item"]: row for row in inputs}
        draw = self._draw(rows, [row["item"] for row in inputs])
        for name, value in draw.figures().items():
            self._metrics["train"][name].append(value)
        self._of = [group.item for group in draw.kept for _ in group.completions]
        self._written = [one for group in draw.kept for one in group.completions]
        found = super()._generate_and_score_completions([dict(rows[item]) for item in self._of])
        return found | {"items": torch.tensor(self._of)}

    def _draw(self, rows: Mapping[int, Mapping[str, Any]], asked: Sequence[int]) -> Draw:
        """Writes to questions until the step has enough groups, see `draw_groups`."""
        self._shown = {}

        def answer(items: Sequence[int]) -> list[Group]:
            self._shown |= self.questions.shown(items, self._core, self._precision)
            size, written = self.stage.group_size, self._write(items)
            groups = [written[start : start + size] for start in range(0, len(written), size)]
            return [
                Group(item, group, self._judged(group, rows[item]))
                for item, group in zip(items, groups, strict=True)
            ]

        wanted = self.stage.batch_size * self.stage.accumulation // self.stage.group_size
        return draw_groups(asked, wanted, answer)

    def _judged(self, completions: list[list[int]], row: Mapping[str, Any]) -> list[float]:
        """What each completion of a question earns, from the text that TRL judges it by."""
        processor: Any = self.processing_class
        texts = processor.batch_decode(completions, skip_special_tokens=True)
        both = zip(texts, completions, strict=True)
        return [self.earned.total(*one, row["answers"], row["choices"]) for one in both]

    @property
    def _core(self) -> SiQVLForConditionalGeneration:
        return self.accelerator.unwrap_model(self.model)

    @property
    def _precision(self) -> Any:
        return precision_of(self.stage)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The prompts as they were encoded; pictures go their own way."""
        return [self.loader.dataset.tokens(item)["input_ids"] for item in self._of], None, {}

    def _generate_single_turn(self, *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        """The completions that the step learns from, which are there already."""
        return self._written, None

    def _write(self, items: Sequence[int]) -> list[list[int]]:
        """Completions by our loop; see `siqvl.training.rewards.rollouts`."""
        start = time.perf_counter()
        written = rollouts(
            self._core,
            self.loader.dataset,
            items,
            self._shown,
            self.stage,
            precision=self._precision,
            end_ids=self._ends,
            seed=self._seed,
            step=self.state.global_step,
        )
        tokens = sum(map(len, written))
        self.telemetry.wrote(tokens, len(written), time.perf_counter() - start)
        return written

    def _chosen(self) -> list[Key]:
        """The questions of the batch, of those that the plan lets the step ask."""
        return list(dict.fromkeys(self._of))

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's; where nothing keeps close to a reference, equal rewards teach nothing."""
        self._of = inputs["items"].tolist()
        learning = (inputs["advantages"] != 0).tolist()
        learning[0] |= not any(learning)  # a loss of nothing has a gradient, which is zero
        self._learning = None if self.beta else learning
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._learning = None

    def _get_per_token_logps_and_entropies(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """TRL's by the same head, with less to compute.

        Equal completions of a question are computed once, those of like length share a pass, and
        those that teach nothing have no gradient. Pictures are features of `_of`'s questions.

        Returns:
            Log-probabilities and entropies [completions, logits_to_keep], in nats.
        """
        different = Different.among(self._of, input_ids, attention_mask)
        learning = self._learning or [True] * len(input_ids)
        several = self.accelerator.num_processes > 1  # DDP takes one pass with a gradient at a time
        divided = passes_over(
            attention_mask[different.rows].sum(1).tolist(),
            [learning[row] for row in different.rows],
            len(input_ids) if several else PASS,
        )
        found = input_ids.new_zeros(2, len(different.rows), logits_to_keep, dtype=torch.float32)
        for numbers in divided:
            rows = [different.rows[number] for number in numbers]
            taught = torch.is_grad_enabled() and learning[rows[0]]
            with torch.set_grad_enabled(taught):
                one = self._of_rows(model, input_ids, attention_mask, logits_to_keep, rows)
            found = found.index_copy(1, torch.tensor(numbers, device=found.device), one)
        log_probs, entropies = found[:, different.of]
        return log_probs, entropies, None

    def _of_rows(
        self,
        model: torch.nn.Module,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        rows: list[int],
    ) -> torch.Tensor:
        """Log-probabilities and entropies [2, rows, logits_to_keep] of some completions."""
        ids, mask = input_ids[rows], attention_mask[rows]
        labels = ids.masked_fill(mask == 0, IGNORED)
        labels[:, :-logits_to_keep] = IGNORED
        there = mask.any(0).nonzero()
        used = slice(int(there[0]), int(there[-1]) + 1)  # the rest is padding in each of them
        shown = [self._shown[self._of[row]] for row in rows if self._of[row] in self._shown]
        seen = {"vision_features": torch.cat(shown)} if shown else {}
        with self.accelerator.autocast():
            outputs = model(
                input_ids=ids[:, used],
                attention_mask=mask[:, used],
                labels=labels[:, used],
                fused_lm_head=True,
                **seen,
            )
        entropies = outputs.entropy  # of the reference TRL asks for none
        if entropies is None:
            entropies = torch.zeros_like(outputs.log_probs)
        each = torch.stack([outputs.log_probs, entropies])
        # the head has one position less than there are tokens: nothing predicts the first
        first = ids.shape[1] - logits_to_keep - used.start - 1
        width = used.stop - used.start - 1 - first
        kept = each[:, :, first : first + width]
        return torch.nn.functional.pad(kept, (0, logits_to_keep - width))

    def write_extra_state(self, folder: Path) -> None:
        """With the figures since the last line of the history, which TRL forgets."""
        super().write_extra_state(folder)
        self.keep(folder, "rewards", dict(self._metrics["train"]))

    def read_extra_state(self, folder: Path) -> None:
        super().read_extra_state(folder)
        for name, values in self.kept(folder, "rewards").items():
            self._metrics["train"][name] = values

    def _send_telemetry(self) -> None:
        """Nothing: TRL tells Hugging Face's servers of every trainer that is made."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: a checkpoint has a card of its own, and a state needs none."""


def _reference(model: SiQVLForConditionalGeneration) -> SiQVLForConditionalGeneration:
    """The weights as they are, in a second model that shares the frozen tower.

    TRL 1.16 would load one anew from the folder that the model says it came from.
    """
    tower = model.model.vision_tower
    return copy.deepcopy(model, {id(tower): tower}).requires_grad_(False).eval()
