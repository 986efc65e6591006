"""A run of two stages with a small model: checkpoints, and what the second one scored."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from siqvl.checkpoint import CheckpointCard, write_checkpoint
from siqvl.evaluation.scoring.scores import Result, Score, Scores, TypeScore
from siqvl.model import assemble
from siqvl.recipe import Recipe, Stage
from tests.model.conftest import parts, tokenizer

__all__ = ["parts", "tokenizer"]

ROOT = Path(__file__).parents[2]
STORE = "store.example.org"
PROMPT = "<|im_start|>user\n<|image_pad|>{{ what }} | `is` <b>it</b>?\n```\n<|im_end|>\n"


@dataclass(frozen=True)
class Run:
    """The folder of a run, as a pipeline leaves it."""

    folder: Path
    cards: dict[Stage, CheckpointCard]

    def checkpoint(self, stage: Stage = Stage.VQA_SFT) -> Path:
        return self.folder / "checkpoints" / stage

    @property
    def report(self) -> Path:
        return self.folder / "evaluation" / Stage.VQA_SFT


def private_recipe(folder: Path) -> Recipe:
    """The tiny recipe as somebody has it at home."""
    content = Recipe.load(ROOT / "recipes" / "tiny.yaml").model_dump(mode="json")
    content["model"]["vision"] = str(ROOT / "recipes" / "tiny_base" / "vision")
    content["model"]["language"] = str(ROOT / "recipes" / "tiny_base" / "language")
    content["tracking"]["uri"] = f"postgresql://{STORE}/mlflow"
    content["tracking"]["spool"] = "~/spool"
    content["stages"]["vqa_sft"]["sources"][1] = {"kind": "table", "path": f"{folder}/my cats.csv"}
    places = [f"output_dir={folder}", f"features_dir={folder}/features"]
    return Recipe.model_validate(content).changed(places)


def scored(checkpoint: str, benchmark: str = "vqa", right: float = 0.687, **changes) -> Scores:
    """Scores that a test chooses."""
    lead = right - 0.29
    score = Score(
        benchmark=benchmark,
        questions=2000,
        players={
            "picture": Result(mean=right, interval=(right - 0.02, right + 0.02)),
            "no_picture": Result(mean=0.262, interval=(0.2435, 0.281)),
            "question_only": Result(mean=0.29, interval=(0.271, 0.309)),
        },
        lead={
            "no_picture": Result(mean=right - 0.262, interval=(right - 0.28, right - 0.24)),
            "question_only": Result(mean=lead, interval=(lead - 0.026, lead + 0.024)),
        },
        types={
            name: TypeScore(
                questions=400,
                players={
                    "picture": Result(mean=mean, interval=(mean - 0.05, mean + 0.05)),
                    "question_only": Result(mean=0.2, interval=(0.1, 0.3)),
                },
            )
            for name, mean in (("color", 0.835), ("how|many", 0.3025))
        },
        method="generation",
        scorer="exact_match/1",
        prompt=PROMPT,
        decoding={"method": "greedy", "max_new_tokens": 6},
        data_fingerprint="e" * 64,
        split="test",
    )
    return Scores(
        stage=Stage.VQA_SFT,
        random_tower=False,
        checkpoint_hash=checkpoint,
        scores=[score.model_copy(update=changes)],
    )


@pytest.fixture(scope="session")
def run(parts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.manual_seed(1)
    model, processor = assemble(*parts)
    folder = tmp_path_factory.mktemp("run") / "tiny" / "20261130-000000-abcd"
    made = Run(folder, {})
    parent = None
    for stage in (Stage.PROJECTOR_ALIGNMENT, Stage.VQA_SFT):
        with torch.no_grad():
            model.model.multi_modal_projector.linear.weight.mul_(1.5)
        parent = write_checkpoint(
            made.checkpoint(stage),
            model,
            processor,
            stage=stage,
            parent=parent,
            recipe=private_recipe(folder),
            data_fingerprint=str(len(made.cards)) * 64,
            code_version="0.1.0+0123456789ab",
            mlflow_run="1" * 32,
            metrics={"train_runtime": 61.0 + len(made.cards), "rows": 6000.0},
            history=[{"step": 10, "loss": 1.5}],
        )
        made.cards[stage] = parent
    made.report.mkdir(parents=True)
    scored(parent.hash).write(made.report)
    return made
