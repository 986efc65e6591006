"""The recipe: every figure of a pipeline, typed, in one YAML file.

A key that is not declared here is an error naming the key, before any work starts. A recipe may
name another one as its `base` and hold only what differs from it.
"""

from __future__ import annotations

import hashlib
import json
import re
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, NonNegativeFloat, ValidationError, model_validator

from siqvl.compute import Compute
from siqvl.errors import UserError, one_line
from siqvl.section import Section

PositiveInt = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Rating = Annotated[int, Field(ge=1, le=5)]
LeaveOut = Literal["none", "exact", "near"]
Part = Literal["vision_tower", "projector", "language_model"]
#: Losses over a pair, and `sft`, the negative log-likelihood of its chosen completion.
PreferenceLoss = Literal["sigmoid", "ipo", "hinge", "bco_pair", "sft"]
#: Who answers a benchmark: the model; the model blind, its picture left out or swapped for that of
#: another question; and three guessers that need no model, see `siqvl.evaluation.floors`.
Player = Literal[
    "picture", "no_picture", "other_picture", "majority", "question_only", "random_choice"
]
Blind = Literal["no_picture", "other_picture"]
ScorerName = Literal["exact_match", "vqav2", "gqa", "anls", "chartqa", "choice"]


class Stage(StrEnum):
    """The training stages, in order; each continues from the checkpoint of the one before."""

    PROJECTOR_ALIGNMENT = "projector_alignment"
    VQA_SFT = "vqa_sft"
    COT_SFT = "cot_sft"
    DPO = "dpo"


class MinRatings(Section):
    """FineVision's ratings, 1 to 5, which its authors gave to every turn with a language model."""

    relevance: Rating | None = Field(None, description="does the answer answer the question?")
    formatting: Rating | None = Field(None, description="is the text well formed?")
    visual_dependency: Rating | None = Field(None, description="does one have to look?")
    image_correspondence: Rating | None = Field(None, description="does it fit the picture?")


class Source(Section):
    """Where rows come from."""

    kind: str = Field(description="adapter in siqvl/data/sources: shapes, easy_vqa, finevision, …")
    path: str | None = Field(
        None, description="hub id, folder or archive; ${VARIABLES} are taken from the environment"
    )
    subsets: list[str] = Field([], description="subsets of the data set; empty means all of them")
    split: str = Field("train", description="split of the data set")
    revision: str | None = Field(None, description="git revision of a hub data set")
    columns: dict[str, str] = Field(
        {}, description="for kind `table`: canonical field -> column of the published file"
    )
    skip: int = Field(
        0, ge=0, description="rows to pass over first, such as those another stage trains on"
    )
    max_samples: PositiveInt | None = Field(None, description="rows to take at most")
    min_ratings: MinRatings = Field(
        MinRatings(), description="for kind `finevision`: turns rated lower are left out"
    )
    weight: float = Field(
        1.0, gt=0, description="times its rows count in one epoch: 2 twice, 0.5 every other one"
    )


class DataPrep(Section):
    """How rows are prepared, for every stage alike."""

    processes: PositiveInt = Field(1, description="worker processes that check and encode rows")
    rows_per_shard: PositiveInt = Field(5_000, description="rows in one parquet shard")
    max_image_pixels: PositiveInt = Field(
        50_000_000, description="larger images are quarantined as decompression bombs"
    )
    max_images: PositiveInt = Field(64, description="a row with more images is quarantined")
    max_characters: PositiveInt = Field(
        200_000, description="a row whose texts are longer together is quarantined"
    )
    max_quarantined: float = Field(
        0.02, ge=0, le=1, description="share of bad rows above which preparation fails"
    )
    duplicates: LeaveOut = Field(
        "exact", description="rows to leave out: same texts, and same or nearly the same pictures"
    )
    leaks: LeaveOut = Field(
        "exact", description="training rows to leave out: their picture is in a benchmark"
    )
    near: float = Field(
        3.0, gt=0, description="largest mean difference (0-255) of 8x8 thumbnails that look alike"
    )
    shards: PositiveInt = Field(1, description="Flyte tasks that prepare a stage side by side")


class Model(Section):
    """The parts the model is assembled from."""

    vision: str = Field(description="SigLIP or SigLIP2: hub id or local folder")
    language: str = Field(description="Qwen2.5: hub id or local folder")
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
        None, description="null keeps Qwen's own; an empty string leaves the system turn out"
    )
    trust_remote_code: bool = Field(False, description="run code that ships with hub weights")


class SFTStage(Section):
    """One supervised stage."""

    sources: list[Source] = Field(min_length=1)
    trainable: list[Part] = Field(min_length=1, description="parts that learn; all others freeze")
    learning_rate: float = Field(gt=0)
    learning_rates: dict[Part, Rate] = Field(
        {}, description="of parts that learn at another rate than `learning_rate`"
    )
    max_steps: PositiveInt | None = Field(None, description="optimizer steps; or give `epochs`")
    epochs: float | None = Field(None, gt=0, description="passes over the mixture of sources")
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
    saving_steps: PositiveInt = Field(500, description="steps between resumable checkpoints")
    kept_states: PositiveInt = Field(2, description="resumable checkpoints that are kept")

    @model_validator(mode="after")
    def _consistent(self) -> SFTStage:
        if (self.max_steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of `max_steps` and `epochs`")
        if self.pack_length is not None and self.pack_length < self.max_length:
            raise ValueError(
                f"pack_length {self.pack_length} is below max_length {self.max_length}: the "
                "longest rows would fit into no pack"
            )
        if self.pack_images and self.pack_images < (self.max_images or self.pack_images + 1):
            raise ValueError("pack_images needs a `max_images` that is no larger")
        if strangers := self.learning_rates.keys() - set(self.trainable):
            raise ValueError(f"learning_rates has {sorted(strangers)}, which `trainable` has not")
        if self.cached_features and "vision_tower" in self.trainable:
            raise ValueError("cached_features needs a frozen vision_tower, but it is trainable")
        return self


class SampledPairs(Section):
    """Preference pairs that the checkpoint DPO starts from writes itself: right against wrong."""

    source: Source = Field(description="the questions, with their answers")
    prompt_suffix: str = Field("", description="appended to every question")
    answer_marker: str | None = Field(
        None, description="judge the text after the last marker (chain of thought)"
    )
    scorer: ScorerName = "exact_match"
    samples: PositiveInt = Field(4, ge=2, description="completions sampled for every question")
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: PositiveInt = 256
    max_pairs: PositiveInt = Field(1, description="pairs kept of one question, at most")
    batch_size: PositiveInt = Field(64, description="completions sampled at a time")
    weight: float = Field(1.0, gt=0, description="2 takes every pair twice an epoch")


class DPOStage(SFTStage):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290)."""

    batching: Literal["packed", "grouped", "padded"] = "packed"
    beta: float = Field(0.1, gt=0)
    loss: dict[PreferenceLoss, Rate] = Field(
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


class Stages(Section):
    """The four training stages."""

    projector_alignment: SFTStage
    vqa_sft: SFTStage
    cot_sft: SFTStage
    dpo: DPOStage


class Benchmark(Section):
    """One evaluation set and how its questions are asked and scored."""

    name: str = Field(pattern=r"^[a-z0-9_.-]+$")
    source: Source
    training: Source | None = Field(
        None, description="the training questions, from which the question-only floors are learnt"
    )
    stages: list[Stage] = Field(list(Stage), description="scored after these stages")
    method: Literal["generation", "likelihood", "preference"] = Field(
        "generation",
        description="generation: what the model writes; likelihood: the option whose letter is "
        "likeliest; preference: whether the chosen completion is likelier than the rejected one",
    )
    scorer: ScorerName = "exact_match"
    blind: list[Blind] = Field(
        ["no_picture", "other_picture"],
        description="asked again without the picture, with another",
    )
    letters: bool = Field(False, description="list the options as A, B, … below the question")
    sampled: bool = Field(
        False,
        description="for preference: pairs that the checkpoint DPO starts from writes itself, as "
        "stages.dpo.sampled says, about the questions of `source`",
    )
    prompt_suffix: str = Field("", description="appended to every question")
    answer_marker: str | None = Field(
        None, description="score the text after the last marker (chain of thought)"
    )
    max_new_tokens: PositiveInt = 16

    @model_validator(mode="after")
    def _consistent(self) -> Benchmark:
        if self.method == "likelihood" and not self.letters:
            raise ValueError("method likelihood compares letters: set `letters: true`")
        if self.sampled and self.method != "preference":
            raise ValueError("`sampled` is for method preference")
        return self


class Rival(Section):
    """Whom a gate compares with; what is left out is as on the gate's own side."""

    player: Player = "picture"
    stage: Stage | None = None
    benchmark: str | None = Field(None, description="another benchmark about the same questions")
    random_tower: bool = Field(False, description="the control model's score")


class Gate(Section):
    """A claim about a stage, tested on paired differences; one that fails stops promotion."""

    claim: str = Field(description="the sentence people read")
    stage: Stage
    benchmark: str
    random_tower: bool = Field(False, description="the claim is about the control model")
    over: Rival
    above: float | None = Field(
        0.0, description="the whole 95 % interval of the difference lies above this share"
    )
    below: float | None = Field(None, description="… and below this one")

    @model_validator(mode="after")
    def _consistent(self) -> Gate:
        if self.above is None and self.below is None:
            raise ValueError(f"gate `{self.claim}` tests nothing: set `above`, `below` or both")
        own = (self.random_tower, "picture", self.stage, self.benchmark)
        over = self.over
        stage, benchmark = over.stage or self.stage, over.benchmark or self.benchmark
        if own == (over.random_tower, over.player, stage, benchmark):
            raise ValueError(f"gate `{self.claim}` compares a score with itself")
        controls = {own[2]} if self.random_tower else set()
        controls |= {stage} if over.random_tower else set()
        if controls - {Stage.PROJECTOR_ALIGNMENT}:
            raise ValueError(
                f"gate `{self.claim}`: the control with a random tower is trained in stage "
                f"`{Stage.PROJECTOR_ALIGNMENT}` alone"
            )
        return self


class Evaluation(Section):
    """What every checkpoint is judged on."""

    benchmarks: list[Benchmark] = Field(min_length=1)
    batch_size: PositiveInt = 32
    shards: PositiveInt = Field(1, description="Flyte tasks that answer side by side")
    random_tower: bool = Field(
        False, description="train and score a control: stage 1 behind a tower of random weights"
    )
    gates: list[Gate] = Field([], description="what must hold before a checkpoint is promoted")
    champion_benchmark: str | None = Field(
        None,
        description="on which a new model has to beat the registry's champion, question by "
        "question, to take its place; null: passed gates are enough",
    )
    report_pictures: PositiveInt = Field(24, description="sample pictures in the report")

    @model_validator(mode="after")
    def _consistent(self) -> Evaluation:
        scored = {benchmark.name: benchmark.stages for benchmark in self.benchmarks}
        if len(scored) < len(self.benchmarks):
            names = [benchmark.name for benchmark in self.benchmarks]
            raise ValueError(f"two benchmarks share a name: {names}")
        for gate in self.gates:
            for name, stage in (
                (gate.benchmark, gate.stage),
                (gate.over.benchmark or gate.benchmark, gate.over.stage or gate.stage),
            ):
                if stage not in scored.get(name, []):
                    raise ValueError(f"gate `{gate.claim}`: no benchmark `{name}` after {stage}")
            if (gate.random_tower or gate.over.random_tower) and not self.random_tower:
                raise ValueError(f"gate `{gate.claim}` needs `random_tower: true`")
        if self.champion_benchmark is not None:
            self._check_champion_benchmark(self.champion_benchmark)
        return self

    def _check_champion_benchmark(self, name: str) -> None:
        last = list(Stage)[-1]
        found = {benchmark.name: benchmark for benchmark in self.benchmarks}.get(name)
        if found is None or last not in found.stages:
            raise ValueError(f"champion_benchmark: no benchmark `{name}` after {last}")
        if found.method == "preference":
            raise ValueError(
                f"champion_benchmark: nobody can guess the pairs of `{name}`, so that a first "
                "model had nothing to beat; name one whose questions are answered"
            )


def has_password(uri: str) -> bool:
    """Whether an address is `scheme://user:password@host`, or `https://token@host`."""
    return re.search(r"://[^/@]*:[^/@]*@|^https?://[^/@]+@", uri) is not None


class Tracking(Section):
    """MLflow."""

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
        30.0, description="how long the end of a task waits for a store that is away"
    )
    system_metrics_seconds: Rate | None = Field(
        10.0, description="between samples of the machine's load and memory; null: none"
    )
    model_name: str = Field(
        "siqvl",
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="registered model whose versions are the stages' checkpoints",
    )
    samples: int = Field(
        8, ge=0, description="rows that a model in training answers, to look at in MLflow; 0: none"
    )
    samples_every: PositiveInt | None = Field(
        None, description="optimizer steps between their answers; null: when a stage ends alone"
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
    """How registered models answer; kept with each of them when it is registered."""

    max_new_tokens: PositiveInt = Field(
        256, description="tokens of an answer; a request may ask for fewer"
    )
    batch_size: PositiveInt = Field(16, description="rows of a request answered side by side")
    max_rows: PositiveInt = Field(256, description="a request with more rows is refused")


class Distributed(Section):
    """Several devices, by torch elastic."""

    enabled: bool = False
    processes: PositiveInt = Field(
        1, description="of each machine: one a GPU, or a few on CPU (gloo)"
    )
    nodes: PositiveInt = Field(
        1, description="machines; several need Kubeflow's training operator on the cluster"
    )
    shared_dir: str | None = Field(
        None, description="for several machines: a folder on a volume that all of them mount"
    )
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="fsdp: weights, gradients and optimizer states are shared out to the GPUs",
    )

    @property
    def several(self) -> bool:
        """Whether a stage is trained by more than one process."""
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
    """The machine that trains, where it cannot be told by looking."""

    threads: PositiveInt | None = Field(
        None, description="CPU threads of a training process; null: OMP_NUM_THREADS, or its cores"
    )
    peak_tflops: float | None = Field(
        None, gt=0, description="of one device, for MFU; null: what is published of a known GPU"
    )


class Recipe(Section):
    """A whole pipeline."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    output_dir: str = "outputs"
    features_dir: str | None = Field(
        None, description="cached tower features of all runs; null: <output_dir>/features"
    )
    features_batch_size: PositiveInt = Field(
        32, description="pictures in one pass of the tower while its features are cached"
    )
    seed: int = 0
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
        if self.distributed.enabled and self.distributed.strategy == "fsdp":
            for stage in Stage:
                if self.stage(stage).ema is not None:
                    raise ValueError(
                        f"stages.{stage}.ema: a running mean needs whole weights on every process; "
                        "set distributed.strategy: ddp"
                    )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: Any) -> Recipe:
        try:
            return handler(with_base(value) if isinstance(value, dict) else value)
        except ValidationError as error:
            raise UserError(f"recipe: {explain(error)}") from None

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a YAML recipe.

        Raises:
            UserError: the file is missing, is no YAML mapping, or a key is wrong.
        """
        path = Path(path)
        content = read_yaml(path)
        try:
            return cls.model_validate(content)
        except UserError as error:
            raise UserError(f"{path}: {error.message}") from None

    def stage(self, stage: Stage) -> SFTStage:
        """The figures of one training stage."""
        return getattr(self.stages, stage.value)

    def hash(self) -> str:
        """sha256 of the recipe's content, stable over key order and comments."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a recipe file holds.

    Raises:
        UserError: it is missing, or no YAML mapping.
    """
    if not path.is_file():
        raise UserError(f"recipe file {path} does not exist; the shipped ones are in recipes/")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no recipe: expected `key: value` lines at its top level")
    return content


def with_base(content: dict[str, Any], seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A recipe that says `base: <file>` holds only what differs from that file.

    Sections are merged key by key; lists, sources among them, are replaced whole.

    Raises:
        UserError: the base is missing, or bases go round in a circle.
    """
    if "base" not in content:
        return content
    changes = {key: value for key, value in content.items() if key != "base"}
    base = str(content["base"])
    if base in seen:
        raise UserError(f"base {base} is based on itself: {' -> '.join((*seen, base))}")
    return _merged(with_base(read_yaml(Path(base)), (*seen, base)), changes)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {key for key in base.keys() & changes.keys() if isinstance(changes[key], dict)}
    deeper = {key: _merged(base[key], changes[key]) for key in both if isinstance(base[key], dict)}
    return base | changes | deeper


def explain(error: ValidationError) -> str:
    """Every complaint of pydantic on one line, each with the dotted key it is about."""
    complaints = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "top level"
        if item["type"] == "extra_forbidden":
            complaints.append(f"unknown key `{key}`{_suggest(error, item['loc'])}")
        elif item["type"] == "missing":
            complaints.append(f"missing key `{key}`")
        else:
            said = item["msg"].removeprefix("Value error, ")
            # a whole section in the sentence would hide what it says
            got = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
            complaints.append(f"`{key}`: {said}{got}")
    return "; ".join(complaints)


def _suggest(error: ValidationError, location: tuple[str | int, ...]) -> str:
    """`, did you mean …?` when a declared key of the same section is spelt alike."""
    model: Any = Recipe
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        model = _section(model.model_fields[part].annotation)
        if model is None:
            return ""
    close = get_close_matches(str(location[-1]), model.model_fields, n=1)
    return f", did you mean `{close[0]}`?" if close else ""


def _section(annotation: Any) -> Any:
    """The Section class inside `X`, `list[X]` or `X | None`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None
