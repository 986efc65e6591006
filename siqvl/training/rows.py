"""The rows of a stage as its trainer takes them: encoded, with cached features where wanted."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import timedelta

from accelerate import PartialState
from datasets import Dataset

from siqvl.data.batching import BatchPlan
from siqvl.data.encode import encode_dataset
from siqvl.data.encoded import EncodedDataset
from siqvl.data.features.build_features import cached_features, features_folder
from siqvl.data.features.shares import own_shares
from siqvl.device import best_device, precision_of
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import Recipe, RewardStage, Stage
from siqvl.stages import STAGES
from siqvl.tensor_store import TensorStore

logger = logging.getLogger(__name__)

#: Processes wait for one another while features are computed; torch gives up after 10 minutes.
LONGEST_WAIT = timedelta(hours=12)


def encoded_rows(
    recipe: Recipe, stage: Stage, dataset: Dataset, processor: SiQVLProcessor
) -> EncodedDataset:
    """The rows that keep to the stage's limits; the others are counted in the log.

    Where the language model is frozen, rows without a picture are among the others: they lead to no
    weight that learns.

    Raises:
        UserError: none of them does.
    """
    figures = recipe.stage(stage)
    encoded = encode_dataset(
        dataset,
        processor,
        kind=STAGES[stage].rows,
        max_length=figures.max_length,
        max_images=figures.max_images,
        learn_turns=figures.learn_turns,
        prompt_suffix=figures.prompt_suffix if isinstance(figures, RewardStage) else "",
        needs_picture="language_model" not in figures.trainable,
        # every training process of this machine encodes for itself
        processes=max(1, recipe.data.processes // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
    )
    for reason, rows in encoded.left_out.items():
        logger.warning("%d of %d rows were left out: %s", rows, len(dataset), reason)
    return encoded


def tower_features(
    recipe: Recipe,
    stage: Stage,
    encoded: EncodedDataset,
    dataset: Dataset,
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
) -> TensorStore | None:
    """Features of the frozen tower for all pictures that are trained on, if the stage wants them.

    Every training process computes its share, or all where each machine has a folder of its own.
    `model` is on its device afterwards.

    Raises:
        UserError: the disk is too small for them, or may not be written to.
    """
    figures = recipe.stage(stage)
    if not figures.cached_features:
        return None
    state = on_device(model)
    folder = features_folder(recipe, recipe.distributed.nodes)
    return cached_features(
        folder,
        dataset.select(encoded.rows),
        model=model,
        processor=processor,
        precision=precision_of(figures),
        batch_size=recipe.features_batch_size,
        workers=figures.loader_workers,
        rank=state.process_index,
        world=state.num_processes,
        shares=own_shares(folder, state),
        barrier=state.wait_for_everyone,
    )


def on_device(model: SiQVLForConditionalGeneration) -> PartialState:
    """Move the model to this process's device; all training processes, which may wait for long."""
    state = PartialState(cpu=best_device() == "cpu", timeout=LONGEST_WAIT)
    model.to(state.device)
    return state


def plan_metrics(plan: BatchPlan, left_out: Mapping[str, int]) -> dict[str, float]:
    """The realised mixture of the planned run, and the share of positions that is padding.

    Args:
        left_out: reason -> rows, of `EncodedDataset`.
    """
    shares = plan.realised()
    rows = sum(share.rows for share in shares)
    metrics = {"data/padding_share": plan.padding_share()}
    metrics |= {f"data/left_out/{reason}": float(count) for reason, count in left_out.items()}
    for number, share in enumerate(shares):
        name = f"data/source {number} {share.source}"
        metrics[f"{name}/rows"] = float(share.rows)
        metrics[f"{name}/tokens"] = float(share.tokens)
        metrics[f"{name}/share"] = share.rows / rows
    return metrics
