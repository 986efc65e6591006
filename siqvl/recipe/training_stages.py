"""The training stages, and the hyperparameters of those four that every recipe has."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from siqvl.recipe.adapter import Adapter
from siqvl.recipe.section import Section, Steps
from siqvl.recipe.source import Source

Part = Literal["vision_tower", "projector", "language_model"]
#: Losses over a pair, and `sft`, the negative log-likelihood of its chosen completion.
PreferenceLoss = Literal["sigmoid", "ipo", "hinge", "bco_pair", "sft"]
ScorerName = Literal[
    "exact_match",
    "vqav2",
    "textvqa",
    "gqa",
    "anls",
    "chartqa",
    "choice",
    "mathvista",
    "mme",
    "mmmu",
    "ocrbench",
    "pope",
    "scienceqa",
]
#: Scorers that depart knowingly from the official script, whose rule `official: true` takes.
DEPARTING: tuple[ScorerName, ...] = ("vqav2", "gqa", "anls")

#: What is said of a stage that has both, or neither.
EITHER = "give exactly one of `max_steps` and `epochs`"


class Stage(StrEnum):
    """The training stages, in order; `siqvl.stages` says what each continues from."""

    # Who writes names and who writes values write the same: what stands in a recipe.
    projector_alignment = "projector_alignment"
    vqa_sft = "vqa_sft"
    cot_sft = "cot_sft"
    dpo = "dpo"
    rlvr = "rlvr"
    PROJECTOR_ALIGNMENT = projector_alignment
    VQA_SFT = vqa_sft
    COT_SFT = cot_sft
    DPO = dpo
    RLVR = rlvr


#: The stages of a whole pipeline, which every recipe has; `rlvr` is one that it may have besides.
PIPELINE = (Stage.PROJECTOR_ALIGNMENT, Stage.VQA_SFT, Stage.COT_SFT, Stage.DPO)


class SFTStage(Section):
    """The hyperparameters of one supervised stage."""

    LATER: ClassVar[tuple[str, ...]] = ("adapter",)

    sources: list[Source] = Field(min_length=1)
    trainable: list[Part] = Field(min_length=1, description="parts that learn; all others freeze")
    adapter: Adapter | None = Field(
        None, description="LoRA: the language model learns by low-rank matrices, not in full"
    )
    learning_rate: float = Field(gt=0)
    learning_rates: dict[Part, PositiveFloat] = Field(
        {}, description="of parts that learn at another rate than `learning_rate`"
    )
    max_steps: Steps | None = Field(None, description="optimizer steps; or give `epochs`")
    epochs: float | None = Field(
        None, gt=0, le=10**6, description="passes over the mixture of sources"
    )
    temperature: float = Field(
        1.0, gt=0, description="1 mixes sources by their rows; larger evens their shares out"
    )
    batching: Literal["packed", "grouped", "padded"] = Field(
        "packed",
        description="packed: rows share sequences; grouped: rows of like length share a batch; "
        "padded: rows as they come",
    )
    batch_size: PositiveInt = Field(8, description="sequences a device and batch")
    pack_length: PositiveInt | None = Field(
        None, description="tokens of a packed sequence; null: max_length, for pairs twice that"
    )
    pack_images: PositiveInt | None = Field(None, description="images a packed sequence may hold")
    accumulation: PositiveInt = Field(4, description="batches summed before an optimizer step")
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    lr_schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    adam_beta2: float = Field(
        0.999, gt=0, lt=1, description="memory of squared gradients; 0.95 suits short stages"
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of a running mean of the weights, which is then saved"
    )
    max_length: PositiveInt = Field(
        2048, description="tokens; longer rows are left out and counted, never cut"
    )
    max_images: PositiveInt | None = Field(
        None, description="rows with more images are left out and counted"
    )
    learn_turns: Literal["last", "all"] = Field(
        "last", description="which assistant turns of a conversation carry loss"
    )
    cached_features: bool = Field(
        False, description="compute the frozen tower's features once a picture, and keep them"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "bf16", description="auto: bf16 where the hardware computes in it, else fp32"
    )
    allow_fp16: bool = Field(
        False, description="fp16 in spite of Qwen's activations, which overflow"
    )
    gradient_checkpointing: bool = False
    compile: bool = Field(False, description="torch.compile of the language model's layers")
    head_chunk: PositiveInt = Field(
        1024,
        description="answer tokens whose logits are in memory at once; none of other tokens are",
    )
    loader_workers: int = Field(2, ge=0)
    prefetch: PositiveInt = Field(2, description="batches that each loader worker prepares ahead")
    logging_steps: PositiveInt = 10
    saving_steps: PositiveInt = Field(
        500, description="steps between states, from which a stopped run goes on"
    )
    kept_states: PositiveInt = Field(2, description="states that are kept")

    @model_validator(mode="after")
    def _consistent(self) -> SFTStage:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError(EITHER)
        if self.pack_length is not None and self.pack_length < self.max_length:
            raise ValueError(
                f"pack_length {self.pack_length} is below max_length {self.max_length}: the "
                "longest rows would fit into no pack"
            )
        if self.pack_images and self.pack_images < (self.max_images or self.pack_images + 1):
            raise ValueError("pack_images needs a `max_images` that is no larger")
        if len(set(self.trainable)) < len(self.trainable):
            raise ValueError(f"trainable names a part twice: {', '.join(self.trainable)}")
        if strangers := self.learning_rates.keys() - set(self.trainable):
            raise ValueError(f"learning_rates has {sorted(strangers)}, which `trainable` has not")
        if self.cached_features and "vision_tower" in self.trainable:
            raise ValueError("cached_features needs a frozen vision_tower, but it is trainable")
        if self.adapter is not None:
            if "language_model" not in self.trainable:
                raise ValueError(
                    "adapter is on the language model: list language_model under `trainable`, or "
                    "leave `adapter` out"
                )
            if "vision_tower" in self.trainable:
                raise ValueError(
                    "adapter needs a frozen vision_tower, but it is trainable: take it out of "
                    "`trainable`, or train all parts in full, without `adapter`"
                )
        return self

    @property
    def in_full(self) -> list[Part]:
        """Return the parts whose own weights learn: all that do, but one that has adapters."""
        return [part for part in self.trainable if not self.adapter or part != "language_model"]


class SampledPairs(Section):
    """How the checkpoint that DPO starts from writes pairs itself: a right and a wrong answer."""

    source: Source = Field(description="the questions, with their answers")
    prompt_suffix: str = Field("", description="appended to every question")
    answer_marker: str | None = Field(
        None, min_length=1, description="judge the text after the last marker (chain of thought)"
    )
    scorer: ScorerName = "exact_match"
    samples: PositiveInt = Field(4, ge=2, description="completions sampled for every question")
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: PositiveInt = 256
    max_pairs: PositiveInt = Field(1, description="pairs kept of one question, at most")
    batch_size: PositiveInt = Field(64, description="completions sampled at a time")
    weight: float = Field(1.0, gt=0, description="2 takes every pair twice an epoch")


class DPOStage(SFTStage):
    """The hyperparameters of DPO (Rafailov et al. 2023, arXiv:2305.18290)."""

    LATER = (*SFTStage.LATER, "likelihood_control")

    batching: Literal["packed", "grouped", "padded"] = "packed"
    beta: float = Field(0.1, gt=0)
    loss: dict[PreferenceLoss, PositiveFloat] = Field(
        {"sigmoid": 1.0},
        min_length=1,
        description="losses and their weights; MPO is {sigmoid: 0.8, bco_pair: 0.2, sft: 1.0}",
    )
    shared_prompt: bool = Field(
        True, description="a pair's prompt and pictures stand once, before both of its completions"
    )
    reference_batch_size: PositiveInt = Field(
        16, description="sequences in one pass of the reference, which is run once before training"
    )
    sampled: SampledPairs | None = Field(
        None, description="pairs that the starting checkpoint writes, beside those of `sources`"
    )
    likelihood_control: bool = Field(
        False, description="this is the control of stage 4: `loss` is `sft` alone"
    )

    @property
    def compares(self) -> bool:
        """Return whether the loss compares chosen with rejected, and the model with a reference."""
        return self.loss.keys() != {"sft"}

    @model_validator(mode="after")
    def _control(self) -> DPOStage:
        if self.likelihood_control and self.compares:
            raise ValueError("likelihood_control marks a stage whose loss is {sft: 1.0}")
        return self
