"""A checkpoint: a Hugging Face model directory plus `siqvl.json`, which says where it is from.

Beside it lies `history.json`: what its trainer logged, step by step, for curves to be drawn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from siqvl.errors import UserError
from siqvl.files import atomic_folder, folder_hash
from siqvl.recipe import Recipe, Stage
from siqvl.stored import Stored, read_stored

if TYPE_CHECKING:
    import torch

    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor

CARD = "siqvl.json"
SCHEMA_VERSION = 1  # of the card; keys of the recipe in it are none of the card's
HISTORY = "history.json"
#: One logging step: `step` (optimizer steps), `loss`, `learning_rate`, `grad_norm`, …; None for a
#: figure that was not finite.
Logged = dict[str, float | None]


class CheckpointCard(Stored):
    """Content of `siqvl.json`.

    The recipe is kept as it was: keys of recipes come and go, and the checkpoint stays readable.
    """

    schema_version: int = Field(1, ge=1)  # cards of before there was this key are of the first
    stage: Stage
    hash: str  # content of the model directory, see `content_hash`
    parent: str | None  # hash of the checkpoint that training continued from
    parent_stage: Stage | None
    recipe: dict[str, Any]
    recipe_hash: str
    data_fingerprint: str
    code_version: str
    mlflow_run: str | None
    metrics: dict[str, float]

    @model_validator(mode="before")
    @classmethod
    def _of_a_known_schema(cls, content: Any) -> Any:
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(
                f"a newer SiQ-VL wrote this card (schema version {version}, this one reads "
                f"{SCHEMA_VERSION}); update SiQ-VL"
            )
        return content

    @property
    def recipe_name(self) -> str:
        """Return what the recipe was called."""
        return str(self.recipe.get("name", "unnamed"))

    @property
    def random_tower(self) -> bool:
        """Return whether this is the control of stage 1, behind a tower of random weights."""
        model = self.recipe.get("model")
        return isinstance(model, dict) and model.get("random_tower") is True

    def todays_recipe(self) -> Recipe:
        """Return the recipe as one of today.

        Raises:
            UserError: it has keys or values that recipes have no more, or lacks new ones.
        """
        try:
            return Recipe.model_validate(self.recipe)
        except UserError as error:
            raise UserError(
                f"the recipe `{self.recipe_name}` that trained {self.stage} "
                f"{self.hash[:12]} with {self.code_version} is none of today: {error.message}"
            ) from None


def content_hash(directory: Path) -> str:
    """sha256 over names and bytes of every file of the model: equal for equal models.

    Neither the card nor the history counts; both tell of the training, not of what came out.
    """
    return folder_hash(directory, lambda path: path.name not in (CARD, HISTORY))


def read_card(directory: Path, expected: Stage | None = None) -> CheckpointCard:
    """Read and judge a checkpoint without loading its weights.

    Raises:
        UserError: no checkpoint there, a broken card, or one of another stage than `expected`.
    """
    directory = Path(directory)
    missing = (
        f"{directory} is no SiQ-VL checkpoint: it has no {CARD}; pass the directory that a "
        "training stage printed"
    )
    card = read_stored(directory / CARD, CheckpointCard, missing)
    if not (directory / "model.safetensors").is_file() and not any(
        directory.glob("model-*.safetensors")
    ):
        raise UserError(
            f"{directory} has a {CARD} but no model.safetensors: the copy is incomplete"
        )
    if expected is not None and card.stage is not expected:
        raise UserError(
            f"checkpoint {directory} is of stage `{card.stage}`, but this stage continues from "
            f"`{expected}`"
        )
    return card


def write_checkpoint(
    directory: Path,
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    *,
    weights: dict[str, torch.Tensor] | None = None,
    stage: Stage,
    parent: CheckpointCard | None,
    recipe: Recipe,
    data_fingerprint: str,
    code_version: str,
    mlflow_run: str | None,
    metrics: dict[str, float],
    history: list[Logged],
) -> CheckpointCard:
    """Save model, processor, card and history; the directory appears whole or not at all.

    Args:
        weights: all of the model's, where it holds only a share of them (FSDP).
    """
    with atomic_folder(Path(directory)) as partial:
        model.save_pretrained(partial, state_dict=weights)
        processor.save_pretrained(partial)
        card = CheckpointCard(
            stage=stage,
            hash=content_hash(partial),
            parent=parent.hash if parent else None,
            parent_stage=parent.stage if parent else None,
            schema_version=SCHEMA_VERSION,
            recipe=recipe.model_dump(mode="json"),
            recipe_hash=recipe.hash(),
            data_fingerprint=data_fingerprint,
            code_version=code_version,
            mlflow_run=mlflow_run,
            metrics=metrics,
        )
        write_history(history, partial)
        (partial / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return card


def training_history(log_history: Iterable[dict[str, Any]]) -> list[Logged]:
    """The numbers of `TrainerState.log_history` by step, without the summary of the whole run.

    The trainer's state is part of what an interrupted run continues from, so this covers the steps
    before the interruption too.
    """
    return [
        {
            name: value if math.isfinite(value) else None
            for name, value in entry.items()
            if isinstance(value, int | float)
        }
        for entry in log_history
        if "step" in entry and "train_runtime" not in entry
    ]


def write_history(history: list[Logged], directory: Path) -> None:
    """Write `history.json`, a step a line."""
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in history)
    (directory / HISTORY).write_text(f"[\n{lines}\n]\n" if lines else "[]\n", encoding="utf-8")


def read_history(directory: Path) -> list[Logged]:
    """What was logged while this checkpoint was trained; empty for one that kept no history.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / HISTORY
    if not path.is_file():
        return []
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); train the stage again") from None
