"""A trainer of the small second stage, as `train_stage` builds one, but at hand."""

from collections.abc import Mapping
from pathlib import Path

import torch

from siqvl.data.encode import encode_dataset
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Recipe, Stage
from siqvl.training.learning import let_learn
from siqvl.training.sft import SFTTrainer


def made_trainer(
    trained,
    recipe: Recipe,
    work_dir: Path,
    *,
    features: Mapping[str, torch.Tensor] | None = None,
    callbacks=(),
) -> SFTTrainer:
    """`recipe` is a changed one of `trained`; the tower is frozen."""
    dataset, manifest = load_prepared(trained.data(Stage.VQA_SFT), RowKind.SFT, verify=False)
    parent = trained.checkpoint(Stage.PROJECTOR_ALIGNMENT)
    model, processor = load_checkpoint(parent, attn_implementation="eager")
    stage = recipe.stage(Stage.VQA_SFT)
    let_learn(model, recipe, stage, "fp32")
    encoded = encode_dataset(dataset, processor, kind=RowKind.SFT, max_length=stage.max_length)
    return SFTTrainer.over(
        model,
        processor,
        encoded,
        stage=stage,
        recipe=recipe,
        manifest=manifest,
        work_dir=work_dir,
        callbacks=list(callbacks),
        features=features,
    )
