"""Completions of a step: transformers' own where nothing is drawn, and the same in any company."""

from pathlib import Path

import torch

from siqvl.training.rewards.rollouts import rollouts


def written(trainer, items: list[int], **changes) -> list[list[int]]:
    model = trainer.model
    shown = trainer.questions.shown(items, model, "fp32")
    options = {"precision": "fp32", "end_ids": trainer._ends, "seed": 0, "step": 0} | changes
    stage = options.pop("stage", trainer.stage)
    return rollouts(model, trainer.loader.dataset, items, shown, stage, **options)


def test_near_temperature_zero_it_writes_what_transformers_does(small, tmp_path: Path) -> None:
    trainer = small.trainer(tmp_path, sampling_temperature=1e-4)
    items = [3, 1, 8]
    found = written(trainer, items)
    assert len(found) == 12
    for place, item in enumerate(items):
        row = trainer.loader.dataset[item]
        pixels = trainer.processing_class.image_processor(
            images=row["images"], return_tensors="pt"
        )["pixel_values"]
        ids = torch.tensor([row["input_ids"]])
        expected = trainer.model.generate(
            input_ids=ids, pixel_values=pixels, do_sample=False, max_new_tokens=24
        )[0, ids.shape[1] :].tolist()
        for one in found[4 * place : 4 * place + 4]:
            assert one == expected


def test_what_is_drawn_follows_from_seed_step_and_question(small, tmp_path: Path) -> None:
    trainer = small.trainer(tmp_path)
    first = written(trainer, [3, 1, 8])
    assert written(trainer, [3, 1, 8]) == first
    assert written(trainer, [8, 3]) == first[8:] + first[:4]
    few = trainer.stage.model_copy(update={"places": 4})
    assert written(trainer, [3, 1, 8], stage=few) == first
    assert written(trainer, [3, 1, 8], step=1) != first
    assert written(trainer, [3, 1, 8], seed=1) != first
    assert len({tuple(one) for one in first[:4]}) > 1
    image = trainer.model.config.image_token_id
    assert all(image not in one for one in first)
