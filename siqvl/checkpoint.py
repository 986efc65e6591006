"""A checkpoint: a Hugging Face model directory plus `siqvl.json`, which says where it is from.

The card names the content, and whoever uses a checkpoint goes by the content: `verify_checkpoint`.

Beside it lies `history.json`: what its trainer logged, step by step, for curves to be drawn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from siqvl.errors import UserError
from siqvl.files import (
    atomic_folder,
    digests_hash,
    file_digests,
    file_sha256,
    known_sha256,
)
from siqvl.recipe import Control, Recipe, Stage
from siqvl.stored import Stored, read_stored

if TYPE_CHECKING:
    import torch

    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor

CARD = "siqvl.json"
SCHEMA_VERSION = 1  # of the card; keys of the recipe in it are none of the card's
HISTORY = "history.json"
#: Files that tell of the model and are no part of it: a published one has the last three, too.
TELLING = frozenset({CARD, HISTORY, "README.md", "scores.json", ".gitattributes"})
#: What a stage with adapters learnt, in PEFT's format: it is in the weights already, and whoever
#: leaves it out has the same checkpoint.
ADAPTER = "adapter"
DOWNLOADS = ".cache"  # of huggingface_hub, in a folder that it fetched a repository to
SHOWN = 3  # files that a sentence names
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
    files: dict[str, str] | None = None  # sha256 of each file that `hash` is of; 0.1.0 kept none

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
    def control(self) -> Control | None:
        """Return which control this is; None: it is a stage itself."""
        if self._says("model", Control.RANDOM_TOWER):
            return Control.RANDOM_TOWER
        if self.stage is Control.LIKELIHOOD.stage and self._says(
            "stages", "dpo", Control.LIKELIHOOD
        ):
            return Control.LIKELIHOOD
        return None

    def _says(self, *keys: str) -> bool:
        """Whether a key of the recipe, which may be of another day, is true."""
        value: Any = self.recipe
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value is True

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

    Files that tell of the model do not count, such as the card and the history, nor does the folder
    of an adapter, whose weights are merged, nor what huggingface_hub keeps beside what it fetched.
    """
    return digests_hash(content_digests(directory))


def content_digests(directory: Path, digest: Callable[[Path], str] = file_sha256) -> dict[str, str]:
    """sha256 of every file of the model, by its relative name; those that `content_hash` is of.

    Args:
        digest: of a file.
    """

    def counts(path: Path) -> bool:
        place = path.relative_to(directory)
        return place.parts[0] not in (DOWNLOADS, ADAPTER) and str(place) not in TELLING

    return file_digests(directory, counts, digest)


def read_card(directory: Path, expected: Stage | tuple[Stage, ...] = ()) -> CheckpointCard:
    """Read a checkpoint's card, and believe it: `verify_checkpoint` compares it with the content.

    Raises:
        UserError: no checkpoint there, a broken card, or one of none of the `expected` stages.
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
    stages = (expected,) if isinstance(expected, Stage) else expected
    if stages and card.stage not in stages:
        raise UserError(
            f"checkpoint {directory} is of stage `{card.stage}`, but this stage continues from "
            f"{' or '.join(f'`{stage}`' for stage in stages)}"
        )
    return card


def verify_checkpoint(directory: Path, expected: Stage | tuple[Stage, ...] = ()) -> CheckpointCard:
    """Read a checkpoint's card and compare the files with it, without loading them.

    A file is read once in a process, and again when it has changed.

    Raises:
        UserError: as `read_card`; a file is missing, was changed or added, or cannot be read; or
            an index of weights names a file that is not in the folder.
    """
    directory = Path(directory)
    card = read_card(directory, expected)
    try:
        found = content_digests(directory, known_sha256)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from None
    if digests_hash(found) != card.hash:
        raise UserError(
            f"checkpoint {directory} is not the one that its {CARD} names: "
            f"{_difference(card.files, found)}; copy it again from where it was written, or train "
            f"stage `{card.stage}` again"
        )
    for name in found:
        if name.endswith(".index.json"):
            _check_index(directory / name, found)
    return card


def check_outside(made: Path, checkpoint: Path, option: str) -> None:
    """Refuses to write into a checkpoint's folder, which would not be that checkpoint any more.

    Args:
        made: a file or folder that is to be.
        option: that names it.

    Raises:
        UserError: it is the checkpoint's folder, or inside of it.
    """
    found, folder = made.resolve(), checkpoint.resolve()
    if found == folder:
        raise UserError(f"{made} is the checkpoint itself; name another folder with `{option}`")
    if found.is_relative_to(folder):
        raise UserError(
            f"{made} lies in the checkpoint, whose files are all named in its siqvl.json: give "
            f"`{option}` a place beside it"
        )


def _difference(named: Mapping[str, str] | None, found: Mapping[str, str]) -> str:
    """What became of the files that a card names."""
    if named is None:
        return "its files are others (0.1.0 wrote it, whose cards do not say of which file)"
    wrong = [f"{name} is missing" for name in sorted(named) if name not in found]
    wrong += [
        f"{name} was {'changed' if name in named else 'added'} after it was written"
        for name, digest in found.items()
        if named.get(name) != digest
    ]
    if not wrong:
        return f"`hash` in {CARD} is not that of its files"
    return ", ".join(wrong[:SHOWN]) + (f" and {len(wrong) - SHOWN} more" * (len(wrong) > SHOWN))


def _check_index(index: Path, found: Mapping[str, str]) -> None:
    """Refuse an index, as transformers writes for weights in several files, that leads elsewhere.

    Raises:
        UserError: it names a file that is not in the folder, or is no index.
    """
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{index} is damaged: it has no `weight_map`") from None
    if strangers := sorted(map(str, named - found.keys())):
        raise UserError(
            f"{index} names {strangers[0]}, which is no file of the checkpoint; copy the "
            "checkpoint again from where it was written"
        )


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
    write_adapter: Callable[[Path], None] | None = None,
) -> CheckpointCard:
    """Save model, processor, card and history; the directory appears whole or not at all.

    Args:
        weights: those to save, where they are not simply the model's: it holds a share of them
            (FSDP), or has adapters that are merged in these.
        write_adapter: makes the folder of what was learnt as an adapter, beside the weights.

    Raises:
        UserError: a weight is NaN or infinite; nothing is written.
    """
    from siqvl.model.finite_weights import non_finite

    if name := non_finite(model.state_dict() if weights is None else weights):
        raise UserError(
            f"weight {name} holds NaN or infinite values, so no checkpoint is written to "
            f"{directory}; lower `learning_rate`, or set `precision: fp32`"
        )
    with atomic_folder(Path(directory)) as partial:
        model.save_pretrained(partial, state_dict=weights)
        processor.save_pretrained(partial)
        files = content_digests(partial)
        card = CheckpointCard(
            stage=stage,
            hash=digests_hash(files),
            parent=parent.hash if parent else None,
            parent_stage=parent.stage if parent else None,
            schema_version=SCHEMA_VERSION,
            recipe=recipe.model_dump(mode="json"),
            recipe_hash=recipe.hash(),
            data_fingerprint=data_fingerprint,
            code_version=code_version,
            mlflow_run=mlflow_run,
            metrics=metrics,
            files=files,
        )
        if write_adapter is not None:
            write_adapter(partial / ADAPTER)
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
