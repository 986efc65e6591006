"""A checkpoint that can be loaded and asked: the tiny base put together, and not trained."""

from pathlib import Path

import torch

from siqvl.checkpoint import write_checkpoint
from siqvl.model.assemble import assemble
from siqvl.recipe import Recipe, Stage
from tests.small_recipe import small_recipe


def small_checkpoint(folder: Path, *, stage: Stage = Stage.VQA_SFT, **sections: object) -> Path:
    """Writes it to a folder `checkpoint`, as of a stage; `sections` replace parts of its recipe."""
    recipe: Recipe = small_recipe(folder, **sections)
    torch.manual_seed(0)  # of the projector, which nobody trained
    rest = recipe.model.model_dump(exclude={"vision", "language", "attention"})
    model, processor = assemble(recipe.model.vision, recipe.model.language, **rest)
    write_checkpoint(
        folder / "checkpoint",
        model,
        processor,
        stage=stage,
        parent=None,
        recipe=recipe,
        data_fingerprint="d" * 64,
        code_version="0.1.0+0123456789ab",
        mlflow_run=None,
        metrics={},
        history=[],
    )
    return folder / "checkpoint"
