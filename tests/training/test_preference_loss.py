"""DPO's loss, and the likelihood that `sft_weight` adds to it, by hand."""

import math
from pathlib import Path

import pytest
import torch
from changed_recipe import changed

from siqvl.data.encode import encode_dataset
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Recipe, Stage
from siqvl.training.dpo import PreferenceTrainer, dpo_trainer
from siqvl.training.stages import freeze


def dpo(trained, recipe: Recipe, work_dir: Path) -> PreferenceTrainer:
    """A trainer whose model is one stage ahead of its reference, so that no term is constant."""
    dataset, manifest = load_prepared(trained.data(Stage.DPO), RowKind.PREFERENCE)
    model, processor = load_checkpoint(trained.checkpoint(Stage.COT_SFT))
    reference, _ = load_checkpoint(trained.checkpoint(Stage.PROJECTOR_ALIGNMENT))
    reference.requires_grad_(False)
    freeze(model, ["projector", "language_model"])
    stage = recipe.stage(Stage.DPO)
    encoded = encode_dataset(dataset, processor, kind=RowKind.PREFERENCE, max_length=512)
    return dpo_trainer(
        model,
        reference,
        processor,
        encoded,
        stage=stage,
        recipe=recipe,
        rows_of_sources=manifest.rows_of_sources,
        work_dir=work_dir,
        callbacks=[],
    )


def log_likelihoods(model, processor, item: dict, side: str) -> list[float]:
    """Of each completion token, from a forward pass of that sequence alone."""
    ids = torch.tensor([item[f"{side}_input_ids"]])
    pixels = processor.image_processor(images=item["images"], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        scores = model.eval()(ids, pixel_values=pixels).logits[0].double().log_softmax(-1)
    labels = item[f"{side}_labels"]
    return [scores[place - 1, label].item() for place, label in enumerate(labels) if label != -100]


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_loss_of_a_batch_by_hand(trained, tmp_path: Path, weight: float) -> None:
    """-log sigmoid(beta * margin), a mean over pairs, plus the weight times the mean negative
    log-likelihood of all chosen tokens."""
    recipe = changed(trained.recipe, Stage.DPO, sft_weight=weight, beta=0.3)
    trainer = dpo(trained, recipe, tmp_path)
    items = [trainer.loader.dataset[index] for index in (0, 1, 5, 8)]
    processor = trainer.data_collator.processor
    losses, chosen_tokens = [], []
    for item in items:
        ratio = {}
        for side in ("chosen", "rejected"):
            ours = log_likelihoods(trainer.model, processor, item, side)
            theirs = log_likelihoods(trainer.ref_model, processor, item, side)
            ratio[side] = sum(ours) - sum(theirs)
            if side == "chosen":
                chosen_tokens += ours
        margin = 0.3 * (ratio["chosen"] - ratio["rejected"])
        losses.append(math.log1p(math.exp(-margin)))
    expected = sum(losses) / len(losses) - weight * sum(chosen_tokens) / len(chosen_tokens)
    with torch.no_grad():
        found = trainer.compute_loss(trainer.model, trainer.data_collator(items))
    assert found.item() == pytest.approx(expected, abs=1e-4)
    assert abs(expected - math.log(2)) > 1e-2  # or any model would do


def test_the_likelihood_term_raises_the_chosen_answers(trained, tmp_path: Path) -> None:
    """The same few steps with and without it: chosen completions end up likelier with it."""
    likely = []
    for name, weight in (("without", 0.0), ("with", 2.0)):
        figures = {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-3, "sft_weight": weight}
        trainer = dpo(trained, changed(trained.recipe, Stage.DPO, **figures), tmp_path / name)
        trainer.train()
        item = trainer.loader.dataset[0]
        processor = trainer.data_collator.processor
        likely.append(sum(log_likelihoods(trainer.model, processor, item, "chosen")))
    assert likely[1] > likely[0]
