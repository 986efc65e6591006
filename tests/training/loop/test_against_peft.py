"""A stage with adapters against a loop of plain PEFT and torch: losses, norms and weights."""

from pathlib import Path

import peft
import pytest
import torch
from torch.nn import functional as F

from siqvl.adapters.attach import adapted, lora_config
from siqvl.data.collate import SFTCollator
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Adapter, Stage
from tests.training.changed_recipe import changed
from tests.training.made_trainer import made_trainer

STEPS, RATE = 6, 2e-3
ADAPTER = Adapter(rank=4, alpha=12.0, targets=["q_proj", "v_proj", "down_proj"])


def in_peft(trained, ours: torch.nn.Module) -> torch.nn.Module:
    """The parent as a `PeftModel` that begins with the adapters of `ours`."""
    base, _ = load_checkpoint(
        trained.checkpoint(Stage.PROJECTOR_ALIGNMENT), attn_implementation="eager"
    )
    config = lora_config(ADAPTER)
    config.modules_to_save = ["multi_modal_projector"]
    model = peft.get_peft_model(base, config).train()
    first = adapted(ours)
    for name, layer in adapted(model.get_base_model()).items():
        down = first[name].lora_A["default"].weight
        layer.lora_A["default"].weight.data.copy_(down.data)
    return model


def learnt(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Of the projector and the adapters, by names without PEFT's wrappers."""
    found = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            plain = name.removeprefix("base_model.model.").replace("modules_to_save.default.", "")
            found[plain] = weight.detach().clone()
    return found


@pytest.mark.parametrize("batching", ["packed", "grouped"])
def test_it_learns_what_peft_and_torch_learn(trained, tmp_path: Path, batching: str) -> None:
    recipe = changed(
        trained.recipe,
        Stage.VQA_SFT,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_schedule="constant",
        warmup_ratio=0.0,
        batching=batching,
        adapter=ADAPTER.model_dump(),
    )
    trainer = made_trainer(trained, recipe, tmp_path)
    model = in_peft(trained, trainer.model)
    collate = SFTCollator(trainer.data_collator.processor)
    batches = []
    for step in range(STEPS):
        keys = trainer.loader.plan.batch(step)
        rows = [row for key in keys for row in (key if isinstance(key, tuple) else [key])]
        batches.append(collate([trainer.train_dataset[row] for row in rows]))
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]

    start = learnt(model)
    weights = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0)
    for batch, logged in zip(batches, history, strict=True):
        labels = batch.pop("labels")
        logits = model(**batch).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert logged["loss"] == pytest.approx(loss.item(), abs=1e-4)
        assert logged["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
    expected, found = learnt(model), learnt(trainer.model)
    assert found.keys() == expected.keys() == start.keys()
    for name, value in expected.items():
        # Adam's first steps go by the sign of a gradient, and some are nothing but rounding
        moved = (value - start[name]).norm()
        assert moved > 0
        assert (found[name] - value).norm() < 0.01 * moved, name
