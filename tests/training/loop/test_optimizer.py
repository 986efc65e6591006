"""Parameter groups: rates by part, decay as Hugging Face's Trainer has it; the mean of weights."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import Trainer
from transformers.trainer_callback import TrainerControl, TrainerState

from siqvl.errors import UserError
from siqvl.model.assemble import assemble
from siqvl.recipe import Recipe, SFTStage, Stage
from siqvl.stages import freeze
from siqvl.training.loop.ema import WeightMean
from siqvl.training.loop.embedding import add_embedding_gradient_in_place
from siqvl.training.loop.optimizer import learning_rates, parameter_groups
from tests.training.changed_recipe import changed

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model():
    base = ROOT / "recipes" / "tiny_base"
    built, _ = assemble(
        str(base / "vision"),
        str(base / "language"),
        pixel_shuffle_factor=None,
        max_image_tokens=16,
        init="config",
    )
    return built


def stage_of(**values: object) -> SFTStage:
    return changed(Recipe.load(ROOT / "recipes" / "tiny.yaml"), Stage.VQA_SFT, **values).stage(
        Stage.VQA_SFT
    )


def test_each_part_has_its_rate_and_decay_is_hugging_faces(model) -> None:
    stage = stage_of(learning_rate=1e-5, learning_rates={"projector": 1e-3}, weight_decay=0.1)
    freeze(model, stage.trainable)
    groups = parameter_groups(model, stage)
    names = {id(weight): name for name, weight in model.named_parameters()}
    seen = [names[id(weight)] for group in groups for weight in group["params"]]
    assert sorted(seen) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    for group in groups:
        assert group["lr"] == {"projector": 1e-3, "language_model": 1e-5}[group["part"]]
        prefix = {"projector": "model.multi_modal_projector.", "language_model": "model.language"}
        of_part = [names[id(weight)] for weight in group["params"]]
        assert all(name.startswith(prefix[group["part"]]) for name in of_part)
    decaying = {
        names[id(weight)] for group in groups if group["weight_decay"] for weight in group["params"]
    }
    theirs = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]
    assert decaying == theirs & set(seen)
    optimizer = torch.optim.AdamW(groups)
    assert learning_rates(optimizer) == {
        "learning_rate/projector": 1e-3,
        "learning_rate/language_model": 1e-5,
    }


def test_a_rate_for_a_frozen_part_is_an_error() -> None:
    with pytest.raises((UserError, ValidationError), match=r"vision_tower.*trainable"):
        stage_of(learning_rates={"vision_tower": 1e-6})


def test_the_tied_gradient_is_dense_and_the_same(model) -> None:
    """With labels and without: AdamW takes no sparse gradients."""
    freeze(model, ["projector", "language_model"])
    embedding = model.get_input_embeddings()
    ids = torch.tensor([[5, 6, 7, 5, 8]])
    for labels in (ids, torch.full_like(ids, -100)):
        gradients = []
        for sparse in (False, True):
            embedding.sparse = False
            if sparse:
                add_embedding_gradient_in_place(model)
            assert embedding.sparse is sparse
            model.zero_grad()
            for _ in range(2):  # batches of one step
                model(input_ids=ids, labels=labels, head_chunk=2).log_probs.sum().backward()
            gradients.append(embedding.weight.grad)
        assert gradients[1].layout is torch.strided
        torch.testing.assert_close(gradients[1], gradients[0])
    embedding.sparse = False
    freeze(model, ["projector"])
    add_embedding_gradient_in_place(model)
    assert not embedding.sparse


def run(mean: WeightMean, layer: nn.Linear, first: int, last: int) -> None:
    """Steps whose weights are the step's own number."""
    state = TrainerState(global_step=first - 1)
    mean.on_train_begin(None, state, TrainerControl())  # type: ignore[arg-type]
    for step in range(first, last + 1):
        with torch.no_grad():
            layer.weight.fill_(float(step))
        state.global_step = step
        mean.on_step_end(None, state, TrainerControl())  # type: ignore[arg-type]


def test_the_mean_follows_the_formula_and_survives_an_interruption(tmp_path: Path) -> None:
    layer = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(layer.weight)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    both = nn.ModuleList([layer, frozen])
    expected = 0.0
    for step in range(1, 31):
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    first = WeightMean(both, 0.7)
    run(first, layer, 1, 12)
    first.write(tmp_path)
    resumed = WeightMean(both, 0.7)
    resumed.read(tmp_path)
    run(resumed, layer, 13, 30)
    straight = WeightMean(both, 0.7)
    nn.init.zeros_(layer.weight)
    run(straight, layer, 1, 30)
    assert list(straight._means) == ["0.weight"]
    assert torch.equal(straight._means["0.weight"], resumed._means["0.weight"])
    straight.to_model()
    assert layer.weight[0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert expected < 29  # it lags behind
