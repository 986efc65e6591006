"""The checkpoint that is served: the model `50m` of benchmarks/training, of random weights."""

from __future__ import annotations

from pathlib import Path

from benchmarks.training.parts import make_parts
from benchmarks.training.scenario import ROOT, ModelName
from siqvl.checkpoint import write_checkpoint
from siqvl.recipe import Recipe, Stage
from siqvl.version import code_version

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
    write_checkpoint(
        place,
        made,
        processor,
        stage=Stage.VQA_SFT,
        parent=None,
        recipe=recipe,
        data_fingerprint="none: these weights were not trained",
        code_version=code_version(),
        mlflow_run=None,
        metrics={},
        history=[],
    )
    return place
