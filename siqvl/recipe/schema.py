"""The whole recipe, and its smaller sections.

A key that is not declared is an error naming the key, before any work starts. A recipe may name
another one as its `base` and hold only what differs from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from siqvl.errors import UserError
from siqvl.recipe.address import has_password
from siqvl.recipe.compute import Compute
from siqvl.recipe.evaluation import Evaluation
from siqvl.recipe.reading.changes import OPTION, parse_changes, with_changes
from siqvl.recipe.reading.load import explain, read_recipe, with_base
from siqvl.recipe.reward_stage import RewardStage
from siqvl.recipe.section import FOLDER_NAME, Section, Steps
from siqvl.recipe.source import DataPrep
from siqvl.recipe.training_stages import EITHER, DPOStage, SFTStage, Stage

#: What to do about a state that other code has written.
ChangedCode = Literal["refuse", "go_on", "begin_anew"]


class Model(Section):
    """The section `model`: the weights that the model is assembled from, and how it sees."""

    LATER = ("thinking",)

    vision: str = Field(description="SigLIP or SigLIP2: hub id or local folder")
    language: str = Field(description="Qwen2.5 or dense Qwen3: hub id or local folder")
    vision_revision: str | None = None
    language_revision: str | None = None
    init: Literal["pretrained", "config"] = Field(
        "pretrained", description="`config` starts from random weights"
    )
    random_tower: bool = Field(
        False, description="random weights in the tower alone: the control of stage 1"
    )
    pixel_shuffle_factor: PositiveInt | None = Field(
        None, description="patches merged along each side; null derives it from max_image_tokens"
    )
    max_image_tokens: PositiveInt = Field(256, description="token budget of one image")
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"] = Field(
        "sdpa", description="auto: flash_attention_2 where it is installed for a GPU, else sdpa"
    )
    system_prompt: str | None = Field(
        None,
        description="null keeps the language model's own; an empty string: no system turn",
    )
    thinking: bool | None = Field(
        None,
        description="Qwen3: answers begin with <think> … </think>; null: not, where that can be",
    )
    trust_remote_code: bool = Field(False, description="run code that ships with hub weights")


class Stages(Section):
    """The section `stages`: the settings of each of the four stages, and of one besides."""

    LATER = ("rlvr",)

    projector_alignment: SFTStage
    vqa_sft: SFTStage
    cot_sft: SFTStage
    dpo: DPOStage
    rlvr: RewardStage | None = Field(
        None, description="learning from rewards, after cot_sft or dpo; null: the recipe has none"
    )

    @model_validator(mode="after")
    def _adapters_have_a_base(self) -> Stages:
        if self.projector_alignment.adapter is not None:
            raise ValueError(
                "projector_alignment.adapter: the first stage continues from no checkpoint, which "
                "an adapter would belong to; give a later stage `adapter`"
            )
        return self


class Tracking(Section):
    """The section `tracking`: the MLflow store, and what is logged there."""

    LATER = ("page_every",)

    experiment: str = "siqvl"
    uri: str | None = Field(
        None, description="null: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db when that is unset"
    )
    spool: str | None = Field(
        None,
        description="folder of what the store does not have yet; null: SIQVL_SPOOL, or `spool` in "
        "output_dir when that is unset",
    )
    patience_seconds: NonNegativeFloat = Field(
        30.0, le=10**7, description="how long the end of a task waits for a store that is away"
    )
    system_metrics_seconds: PositiveFloat | None = Field(
        10.0, le=10**7, description="between samples of the machine's load; null: none"
    )
    model_name: str = Field(
        "siqvl",
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="registered model whose versions are the stages' checkpoints",
    )
    samples: int = Field(
        8, ge=0, description="rows that a model in training answers, to look at in MLflow; 0: none"
    )
    samples_every: Steps | None = Field(
        None, description="optimizer steps between their answers; null: when a stage ends alone"
    )
    page_every: Steps | None = Field(
        50,
        description="optimizer steps between pages of a stage in training, which on a cluster is "
        "its task's live deck; null: when it ends alone",
    )
    sample_tokens: PositiveInt = Field(64, description="of such an answer at most")

    @model_validator(mode="after")
    def _no_password(self) -> Tracking:
        if self.uri and has_password(self.uri):
            raise UserError(
                "recipe: `tracking.uri` has a password in it, and recipes are logged: leave it out "
                "and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return self


class Serving(Section):
    """The section `serving`: how registered models answer, kept with each of them."""

    LATER = ("max_request_pixels", "precision")

    max_new_tokens: PositiveInt = Field(
        256, description="tokens of an answer; a request may ask for fewer"
    )
    batch_size: PositiveInt = Field(16, description="rows of a request answered side by side")
    max_rows: PositiveInt = Field(256, description="a request with more rows is refused")
    max_request_pixels: PositiveInt = Field(
        10**9, description="a request whose pictures have more pixels together is refused"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "fp32", description="auto: bf16 where the hardware computes in it"
    )


class Distributed(Section):
    """The section `distributed`: training by several processes, which torch elastic starts."""

    enabled: bool = False
    processes: PositiveInt = Field(
        1, description="of each machine: one a GPU, or a few on CPU (gloo)"
    )
    nodes: PositiveInt = Field(
        1, description="machines; several need Kubeflow's training operator on the cluster"
    )
    shared_dir: str | None = Field(
        None,
        description="for several machines: a folder on a volume that all of them mount, where "
        "states and cached features are",
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="fsdp: weights, gradients and optimizer states are shared out to the GPUs",
    )

    @property
    def several(self) -> bool:
        """Return whether a stage is trained by more than one process."""
        return self.enabled and self.processes * self.nodes > 1

    @model_validator(mode="after")
    def _consistent(self) -> Distributed:
        if self.nodes > 1 and not self.enabled:
            raise ValueError(f"nodes is {self.nodes}, but enabled is false")
        if self.nodes > 1 and not self.shared_dir:
            raise ValueError(
                f"nodes is {self.nodes}: set shared_dir to a folder that every machine mounts; "
                "resumable states have a part of every process"
            )
        return self


class Hardware(Section):
    """The section `hardware`: what the training machine does not tell of itself."""

    threads: PositiveInt | None = Field(
        None, description="CPU threads of a training process; null: OMP_NUM_THREADS, or its cores"
    )
    peak_tflops: float | None = Field(
        None, gt=0, description="of one device, for MFU; null: what is published of a known GPU"
    )


class Recipe(Section):
    """Every setting of a pipeline."""

    LATER = ("changed_code", "changes")

    name: str = Field(pattern=FOLDER_NAME, max_length=100)
    output_dir: str = "outputs"
    features_dir: str | None = Field(
        None,
        description="cached tower features of all runs; null: <output_dir>/features, of a stage on "
        "several machines <shared_dir>/features",
    )
    features_batch_size: PositiveInt = Field(
        32, description="pictures in one pass of the tower while its features are cached"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="NumPy takes no other")
    changed_code: ChangedCode = Field(
        "refuse", description="what is done about a state, or finished steps, of other code"
    )
    changes: list[str] = Field(
        [], description="what `--set` changed, to be seen in MLflow; written by it, and no setting"
    )
    model: Model
    data: DataPrep = DataPrep()
    stages: Stages
    evaluation: Evaluation
    tracking: Tracking = Tracking()
    serving: Serving = Serving()
    distributed: Distributed = Distributed()
    hardware: Hardware = Hardware()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        gpus, processes = self.compute.training.gpus, self.distributed.processes
        if gpus > 1 and not self.distributed.enabled:
            raise ValueError(
                f"compute.training.gpus is {gpus}: set distributed.enabled: true and "
                f"distributed.processes: {gpus}"
            )
        if gpus and self.distributed.enabled and gpus != processes:
            raise ValueError(
                f"distributed.processes is {processes}, but compute.training.gpus is {gpus}: "
                "training has one process a GPU"
            )
        if self.evaluation.likelihood_control and not self.stages.dpo.compares:
            raise ValueError(
                "evaluation.likelihood_control: the loss of stages.dpo is `sft` alone, so that the "
                "control would be the stage itself"
            )
        if self.stages.rlvr is None:
            for benchmark in self.evaluation.benchmarks:
                if Stage.RLVR in benchmark.stages:
                    raise ValueError(
                        f"benchmark `{benchmark.name}` is scored after rlvr, but `stages.rlvr` is "
                        "null: fill that section in, or take rlvr out of `stages` there"
                    )
        if self.distributed.enabled and self.distributed.strategy == "fsdp":
            if self.stages.rlvr is not None:
                raise ValueError(
                    "stages.rlvr writes completions, which needs whole weights on every process; "
                    "set distributed.strategy: ddp"
                )
            for stage in self.trained:
                if self.stage(stage).ema is not None:
                    raise ValueError(
                        f"stages.{stage}.ema: a running mean needs whole weights on every process; "
                        "set distributed.strategy: ddp"
                    )
        return self

    @model_validator(mode="after")
    def _answers_begin_with_answers(self) -> Recipe:
        likely = [one.name for one in self.evaluation.benchmarks if one.method == "likelihood"]
        if self.model.thinking and likely:
            raise ValueError(
                f"model.thinking is true, and benchmark `{likely[0]}` asks how likely an answer's "
                "first token is, where the model begins with thoughts: ask it by method generation"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: Any) -> Recipe:
        try:
            return handler(with_base(value) if isinstance(value, dict) else value)
        except ValidationError as error:
            raise UserError(f"recipe: {explain(error, cls)}") from None

    @classmethod
    def load(cls, path: str | Path, changes: Sequence[str] = ()) -> Recipe:
        """Read a YAML recipe.

        Args:
            changes: of single keys, see `changed`.

        Raises:
            UserError: the file or its base is missing or no YAML mapping, or a key is wrong.
        """
        path = Path(path)
        content = read_recipe(path)
        try:
            return cls.model_validate(content).changed(changes)
        except UserError as error:
            raise UserError(f"{path}: {error.message}") from None

    @property
    def trained(self) -> list[Stage]:
        """Return the stages that the recipe has, in their order."""
        return [stage for stage in Stage if getattr(self.stages, stage.value) is not None]

    def changed(self, changes: Sequence[str]) -> Recipe:
        """Return this recipe with single keys set, and a note of them in its own `changes`.

        Args:
            changes: each as it stands behind `--set`: `key=value`, or a JSON list of those.

        Raises:
            UserError: a key is not there or set twice, or the whole is no recipe any more.
        """
        parsed = parse_changes(changes)
        if not parsed:
            return self
        content = with_changes(self.model_dump(mode="json"), parsed, Recipe)
        told = list(map(str, parsed))
        try:
            recipe = Recipe.model_validate(content)
        except UserError as error:
            said = f"{OPTION} {f' {OPTION} '.join(told)}: {error.message}"
            for change in parsed if EITHER in said else []:
                if change.other is not None:
                    said += f"; add {OPTION} {change.other}=null"
            raise UserError(said) from None
        new = {change.key for change in parsed}
        kept = [one for one in recipe.changes if one.partition("=")[0] not in new]
        return recipe.model_copy(update={"changes": kept + told})

    def stage(self, stage: Stage) -> SFTStage:
        """Return the hyperparameters of one training stage.

        Raises:
            UserError: the recipe has not the stage `rlvr`.
        """
        figures = getattr(self.stages, stage.value)
        if figures is None:
            raise UserError(
                f"the recipe has no section `stages.{stage}`: recipes/rewards.yaml has one"
            )
        return figures

    def hash(self) -> str:
        """Return the sha256 of the recipe's content, stable over key order and comments.

        It is the same whether a value stands in a file or was set by `--set`.
        """
        content = json.dumps(self.model_dump(mode="json", exclude={"changes"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()
