"""The stage table: what each training stage continues from, reads and is known by."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siqvl.data.schema import RowKind
from siqvl.recipe import Part, Stage

if TYPE_CHECKING:
    from siqvl.model.modeling import SiQVLForConditionalGeneration

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageSpec:
    """One line of the stage table."""

    stage: Stage
    title: str
    parents: tuple[Stage, ...]  # whose checkpoint it may continue from; none: it assembles one
    rows: RowKind


STAGES: dict[Stage, StageSpec] = {
    spec.stage: spec
    for spec in (
        StageSpec(Stage.PROJECTOR_ALIGNMENT, "projector alignment", (), RowKind.SFT),
        StageSpec(Stage.VQA_SFT, "VQA SFT", (Stage.PROJECTOR_ALIGNMENT,), RowKind.SFT),
        StageSpec(Stage.COT_SFT, "chain-of-thought SFT", (Stage.VQA_SFT,), RowKind.SFT),
        StageSpec(Stage.DPO, "DPO", (Stage.COT_SFT,), RowKind.PREFERENCE),
        StageSpec(Stage.RLVR, "rewards", (Stage.COT_SFT, Stage.DPO), RowKind.EVALUATION),
    )
}

#: Parameter name prefixes of the parts a recipe may list under `trainable`. With tied embeddings
#: `lm_head.weight` is the input embedding itself, so the head belongs to the language model.
PART_PREFIXES: dict[Part, tuple[str, ...]] = {
    "vision_tower": ("model.vision_tower.",),
    "projector": ("model.multi_modal_projector.",),
    "language_model": ("model.language_model.", "lm_head."),
}


def freeze(model: SiQVLForConditionalGeneration, trainable: list[Part]) -> dict[str, int]:
    """Let exactly the parts in `trainable` learn.

    Returns:
        Number of trainable parameters by part, zero for a frozen one.

    Raises:
        ValueError: a parameter belongs to no known part (a new module that nobody assigned).
    """
    counts: dict[str, int] = dict.fromkeys(PART_PREFIXES, 0)
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(part in trainable)
        counts[part] += parameter.numel() if parameter.requires_grad else 0
    said = (f"{part} {count:,}" if count else f"{part} frozen" for part, count in counts.items())
    logger.info("trainable: %s", ", ".join(said))
    return counts


def part_of(name: str) -> Part:
    """The part that a parameter belongs to, by its name, inside of DDP's wrapper too.

    Raises:
        ValueError: it belongs to none (a new module that nobody assigned).
    """
    name = name.removeprefix("module.")
    for part, prefixes in PART_PREFIXES.items():
        if name.startswith(prefixes):
            return part
    raise ValueError(f"parameter {name} belongs to none of the parts {list(PART_PREFIXES)}")
