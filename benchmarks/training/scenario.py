"""What is compared: a model, a stage, a precision, and how much of it; as a recipe of ours."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from siqvl.recipe import Recipe, Stage
from siqvl.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]

ModelName = Literal["tiny", "50m", "0.5b", "full"]
STAGE_NAMES = {"1": Stage.PROJECTOR_ALIGNMENT, "2": Stage.VQA_SFT, "dpo": Stage.DPO}


@dataclass(frozen=True)
class Size:
    """What fits a model.

    Attributes:
        rows_per_step: by stage; the effective batch, of both sides.
        steps: optimizer steps of a run, warm-up included.
        max_image_tokens: of one picture.
        attention: quickest on the machine it is meant for, of both sides.
        batching: of ours. On a CPU packs only make attention's mask larger.
        pack_length: tokens of a pack.
        loader_workers: of both sides.
    """

    rows_per_step: dict[str, int]
    steps: int
    max_image_tokens: int
    attention: str
    batching: str
    pack_length: int
    loader_workers: int


SIZES: dict[ModelName, Size] = {
    "tiny": Size({"1": 32, "2": 32, "dpo": 32}, 33, 4, "eager", "grouped", 512, 0),
    "50m": Size({"1": 16, "2": 16, "dpo": 8}, 11, 64, "eager", "grouped", 1024, 0),
    "0.5b": Size({"1": 4, "2": 8, "dpo": 2}, 5, 64, "eager", "grouped", 1024, 0),
    "full": Size({"1": 64, "2": 64, "dpo": 16}, 23, 81, "sdpa", "packed", 2048, 8),
}
#: Of `--adapter`, of both sides; the projector learns in full beside it.
ADAPTER = {"rank": 16, "alpha": 32.0}
#: Steps before the clock starts: kernels are chosen, memory is taken, the optimizer has its state.
WARM_UP = 3


@dataclass(frozen=True)
class Scenario:
    """One comparison.

    Attributes:
        work: folder of what both sides share: parts, rows, the parent checkpoint.
        steps: optimizer steps of every run; all rows are seen once in them.
        rows_per_step: the effective batch.
        adapter: the language model learns by LoRA.
    """

    model: ModelName
    stage: str  # a key of STAGE_NAMES
    precision: str
    steps: int
    rows_per_step: int
    work: Path
    adapter: bool = False

    @classmethod
    def of(cls, model: ModelName, stage: str, work: Path, **changes: Any) -> Scenario:
        """With the model's usual size but for `changes`; None changes nothing."""
        size = SIZES[model]
        usual = {
            "precision": "bf16" if model == "full" else "fp32",
            "steps": size.steps,
            "rows_per_step": size.rows_per_step[stage],
        }
        usual |= {name: value for name, value in changes.items() if value is not None}
        return cls(model=model, stage=stage, work=work, **usual)

    @property
    def rows(self) -> int:
        """All rows that are trained on."""
        return self.steps * self.rows_per_step

    @property
    def recipe_stage(self) -> Stage:
        return STAGE_NAMES[self.stage]

    @property
    def size(self) -> Size:
        return SIZES[self.model]

    @property
    def parts(self) -> Path:
        return self.work / "parts"

    @property
    def data(self) -> Path:
        return self.work / f"rows-{self.stage}-{self.rows}"

    @property
    def parent(self) -> Path | None:
        """The checkpoint that the stage continues from, of weights that nobody trained."""
        parents = STAGES[self.recipe_stage].parents
        return self.work / f"checkpoint-{parents[0]}" if parents else None

    def to_json(self) -> dict[str, Any]:
        content = asdict(self) | {"work": str(self.work)}
        # builds of before there were adapters take no such key
        return {name: value for name, value in content.items() if name != "adapter" or value}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Scenario:
        return cls(**content | {"work": Path(content["work"])})


def recipe_for(
    scenario: Scenario, sources: list[dict[str, Any]], changes: dict[str, Any], output: Path
) -> Recipe:
    """recipes/tiny.yaml with the model, the rows and the size of a scenario.

    Args:
        sources: of the stage.
        changes: keys of the stage that a variant of ours sets.
        output: folder of the run; features and the reference's log-probabilities are cached below
            it, so that no run finds those of another.
    """
    content = Recipe.load(ROOT / "recipes" / "tiny.yaml").model_dump(mode="json")
    size = scenario.size
    content |= {"output_dir": str(output), "features_dir": str(output / "features")}
    # work done once a row takes no more memory than a step does
    content["features_batch_size"] = scenario.rows_per_step
    content["model"] |= {
        "vision": str(scenario.parts / "vision"),
        "language": str(scenario.parts / "language"),
        "init": "pretrained" if scenario.model == "tiny" else "config",
        "max_image_tokens": size.max_image_tokens,
        "attention": size.attention,
    }
    stage = content["stages"][scenario.recipe_stage.value]
    stage |= {
        "sources": sources,
        "max_steps": scenario.steps,
        "epochs": None,
        "batching": size.batching,
        "pack_length": None,
        "batch_size": scenario.rows_per_step,
        "accumulation": 1,
        "max_length": size.pack_length,
        "cached_features": scenario.stage == "1",
        "precision": scenario.precision,
        "loader_workers": size.loader_workers,
        "logging_steps": 10,
        "saving_steps": 10**6,  # none while the clock runs; the peer writes none either
    }
    if scenario.stage == "dpo":
        # the loss that both sides have; a rate at which random weights do not run away
        stage |= {"sampled": None, "loss": {"sigmoid": 1.0}, "learning_rate": 1e-4}
        stage["reference_batch_size"] = scenario.rows_per_step
    if scenario.adapter:
        stage["adapter"] = ADAPTER
    stage |= changes
    return Recipe.model_validate(content)
