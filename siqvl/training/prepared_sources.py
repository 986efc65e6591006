"""Which of a stage's sources the rows are of that it was given."""

from __future__ import annotations

from siqvl.data.manifest import Manifest
from siqvl.errors import UserError
from siqvl.recipe import DPOStage, SFTStage, Source

DATA = "the data"  # that a stage was given, in a sentence about it


def sources_of(stage: SFTStage, manifest: Manifest) -> list[Source]:
    """A stage's sources in the order in which prepared rows of them stand.

    Sampled pairs are the last of DPO's.

    Raises:
        UserError: the rows were prepared from other sources.
    """
    sampled = stage.sampled if isinstance(stage, DPOStage) else None
    wanted, found = len(stage.sources) + (sampled is not None), len(manifest.sources)
    if wanted != found:
        raise UserError(_other_sources(stage, wanted, found))
    if sampled is None:
        return manifest.in_order(stage.sources, DATA)
    *given, last = manifest.sources
    constructed = manifest.model_copy(update={"sources": given}).in_order(stage.sources, DATA)
    manifest.model_copy(update={"sources": [last]}).in_order([sampled.source], DATA)
    named = {"kind": f"sampled {last.kind}", "weight": sampled.weight}
    return [*constructed, last.model_copy(update=named)]


def _other_sources(stage: SFTStage, wanted: int, found: int) -> str:
    said = f"the data has rows of {found} sources, but the recipe's stage names {wanted} of them"
    if isinstance(stage, DPOStage) and stage.sampled is not None:
        return f"{said}, sampled pairs included; add these with the task preference_pairs"
    return f"{said}; prepare the data with this recipe"
