"""The checkpoint that is served: the model `50m` of benchmarks/training, of random weights."""

from __future__ import annotations

from pathlib import Path

from benchmarks.training.parts import make_parts, write_untrained
from benchmarks.training.scenario import ROOT, ModelName
from siqvl.recipe import Recipe, Stage

IMAGE_TOKENS = {"tiny": 16, "50m": 64, "full": 81}


def made_checkpoint(model: ModelName, folder: Path) -> Path:
    """Writes a checkpoint of random weights: answers are as long as asked, but for chance."""
    import torch

    from siqvl.model.assemble import assemble

    place = folder / "checkpoint"
    if place.exists():
        return place
    make_parts(model, folder / "parts")
    torch.manual_seed(0)
    made, processor = assemble(
        str(folder / "parts" / "vision"),
        str(folder / "parts" / "language"),
        max_image_tokens=IMAGE_TOKENS[model],
        init="config",
    )
    recipe = Recipe.load(ROOT / "recipes" / "tiny.yaml")
    write_untrained(place, made, processor, Stage.VQA_SFT, recipe)
    return place
