"""Each stage changes exactly the parts its recipe lists, and its checkpoint names its parent."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from siqvl.checkpoint import CARD, content_hash, read_card
from siqvl.errors import UserError
from siqvl.model.assemble import assemble, load_checkpoint
from siqvl.recipe import PIPELINE, Stage
from siqvl.stages import PART_PREFIXES, STAGES, freeze
from siqvl.training.stage import train_stage


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


@pytest.mark.parametrize("stage", list(PIPELINE), ids=str)
def test_only_the_listed_parts_learn(trained, stage: Stage) -> None:
    after = weights(trained.checkpoint(stage))
    parent = trained.parent(stage)
    if parent is None:
        recipe = trained.recipe.model
        model, _ = assemble(
            recipe.vision, recipe.language, max_image_tokens=recipe.max_image_tokens
        )
        before = dict(model.state_dict())
    else:
        before = weights(parent)
    learns = tuple(
        prefix for part in trained.recipe.stage(stage).trainable for prefix in PART_PREFIXES[part]
    )
    for name, value in after.items():
        if not name.startswith(learns):
            assert torch.equal(value, before[name]), f"{name} is frozen but changed"
        elif parent is not None:  # a fresh projector starts at random: nothing to compare with
            assert not torch.equal(value, before[name]), f"{name} should learn but did not"


def test_checkpoints_name_their_parents(trained) -> None:
    cards = {stage: read_card(trained.checkpoint(stage), expected=stage) for stage in PIPELINE}
    for stage, card in cards.items():
        (parent,) = STAGES[stage].parents or (None,)
        assert card.parent_stage is parent
        assert card.parent == (cards[parent].hash if parent else None)
        assert card.hash == content_hash(trained.checkpoint(stage))
        assert card.recipe_hash == trained.recipe.hash()
        manifest = json.loads((trained.data(stage) / "manifest.json").read_text())
        assert card.data_fingerprint == manifest["fingerprint"]
    assert len({card.hash for card in cards.values()}) == len(PIPELINE)


def test_a_checkpoint_is_a_hugging_face_directory(trained) -> None:
    names = {path.name for path in trained.checkpoint(Stage.DPO).iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        CARD,
    } <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".pth"))]
    assert not list(trained.folder.glob("checkpoints/.*")), "work directories are left behind"


def test_a_checkpoint_of_the_wrong_stage_is_refused_by_both_names(trained) -> None:
    with pytest.raises(UserError) as caught:
        train_stage(
            Stage.DPO,
            trained.recipe,
            data=trained.data(Stage.DPO),
            checkpoint=trained.checkpoint(Stage.VQA_SFT),
            output=trained.folder / "never",
        )
    assert caught.value.message == (
        f"checkpoint {trained.checkpoint(Stage.VQA_SFT)} is of stage `vqa_sft`, but this stage "
        "continues from `cot_sft`"
    )
    assert not (trained.folder / "never").exists()


def test_rows_of_the_wrong_kind_are_refused(trained) -> None:
    with pytest.raises(UserError, match=r"(?s)preference.*sft|sft.*preference"):
        train_stage(
            Stage.DPO,
            trained.recipe,
            data=trained.data(Stage.COT_SFT),
            checkpoint=trained.checkpoint(Stage.COT_SFT),
            output=trained.folder / "never",
        )


def test_a_damaged_card_and_a_plain_folder_are_one_line_each(trained, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no SiQ-VL checkpoint: it has no siqvl\.json"):
        read_card(tmp_path)
    content = json.loads((trained.checkpoint(Stage.DPO) / CARD).read_text())
    content["stage"] = "dop"
    (tmp_path / CARD).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"siqvl\.json is damaged: `stage`"):
        read_card(tmp_path)
    content["stage"] = "dpo"
    (tmp_path / CARD).write_text(json.dumps(content))
    with pytest.raises(UserError, match="the copy is incomplete"):
        read_card(tmp_path)


def test_freeze_counts_and_refuses_strangers(trained) -> None:
    model, _ = load_checkpoint(trained.checkpoint(Stage.PROJECTOR_ALIGNMENT))
    counts = freeze(model, ["projector"])
    projector = sum(p.numel() for p in model.model.multi_modal_projector.parameters())
    assert counts == {"vision_tower": 0, "projector": projector, "language_model": 0}
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == projector
    model.model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"model\.extra\.weight belongs to none of the parts"):
        freeze(model, ["projector"])
