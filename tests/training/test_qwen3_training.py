"""A SigLIP 2 and a Qwen3 from folders through every stage, and what answers with the result."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import SiglipImageProcessor, SiglipVisionModel

from siqvl.data.schema import RowKind, sft_row
from siqvl.data.shards import load_prepared
from siqvl.generation.completions import complete, load_to_answer, prompt_item
from siqvl.model import load_checkpoint
from siqvl.recipe import Recipe, Stage
from siqvl.stages import STAGES
from siqvl.training.stage import train_stage
from tests.model.test_checkpoint_files import FRESH, run_fresh
from tests.model.test_thinking import EMPTY, HYBRID, PLAIN
from tests.model.tiny_siqvl import (
    conversation,
    encode,
    picture,
    tiny_qwen3_config,
    tiny_vision_config,
    write_language,
)
from tests.small_recipe import small_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    """The tiny recipe over parts of today; SFT packed, at two steps a stage."""
    folder = tmp_path_factory.mktemp("qwen3")
    torch.manual_seed(0)
    SiglipVisionModel(tiny_vision_config()).save_pretrained(folder / "siglip2")
    processor = SiglipImageProcessor(size={"height": 16, "width": 16}, resample=2)
    processor.save_pretrained(folder / "siglip2")
    write_language(folder / "qwen3", tiny_qwen3_config(), HYBRID, max_shard_size="30KB")
    content = small_recipe(folder).model_dump(mode="json")
    content["model"] |= {"vision": str(folder / "siglip2"), "language": str(folder / "qwen3")}
    content["model"] |= {"attention": "sdpa", "thinking": False}
    for name in ("projector_alignment", "vqa_sft", "cot_sft"):
        content["stages"][name]["batching"] = "packed"
    content["stages"]["vqa_sft"]["gradient_checkpointing"] = True
    return Recipe.model_validate(content)


@pytest.fixture(scope="module")
def checkpoints(recipe, trained, tmp_path_factory) -> dict[Stage, Path]:
    """Of all four stages, on the rows that the tiny pipeline has."""
    made: dict[Stage, Path] = {}
    for stage in Stage:
        parent = STAGES[stage].parent
        made[stage] = tmp_path_factory.mktemp("stages") / stage.value
        train_stage(
            stage,
            recipe,
            data=trained.data(stage),
            checkpoint=made[parent] if parent else None,
            output=made[stage],
        )
    return made


def test_every_stage_teaches_what_it_names(recipe, checkpoints):
    before = None
    for stage, folder in checkpoints.items():
        weights = load_file(folder / "model.safetensors")
        learned = recipe.stage(stage).trainable
        norm = "model.language_model.layers.1.self_attn.q_norm.weight"
        linear = "model.multi_modal_projector.linear.weight"
        tower = "model.vision_tower.encoder.layers.0.mlp.fc1.weight"
        assert norm in weights
        assert "lm_head.weight" not in weights  # tied
        if before is not None:
            assert torch.equal(before[norm], weights[norm]) is ("language_model" not in learned)
            assert not torch.equal(before[linear], weights[linear])
            assert torch.equal(before[tower], weights[tower])
        before = weights
    text = json.loads((checkpoints[Stage.DPO] / "config.json").read_text())["text_config"]
    assert (text["model_type"], text["head_dim"]) == ("qwen3", 12)


def test_the_engine_answers_what_generate_answers(checkpoints):
    model, processor = load_to_answer(checkpoints[Stage.DPO], "sdpa")
    rows = [
        sft_row(f"made/{number}", [picture(number)] * pictures, question, "?", source="made")
        for number, (question, pictures) in enumerate([("what is it?", 1), ("red?", 0), ("b", 2)])
    ]
    items = [prompt_item(row, processor) for row in rows]
    found = complete(model, processor, items, max_new_tokens=12, places=2)
    for row, item, answer in zip(rows, items, found, strict=True):
        inputs = encode(processor, row["prompt"][0]["content"], row["images"])
        assert inputs["input_ids"][0].tolist() == item["input_ids"]
        text = processor.tokenizer.decode(item["input_ids"])
        assert text.endswith(PLAIN + EMPTY)
        with torch.no_grad():
            out = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        new = out[0, inputs["input_ids"].shape[1] :]
        assert answer.text == processor.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_rows_of_the_stage_are_read_as_the_checkpoint_asks(checkpoints, trained):
    """The learned part of a prepared row follows what evaluation's prompt ends with."""
    from siqvl.data.encode import encode_prompt, encode_sft

    _, processor = load_checkpoint(checkpoints[Stage.COT_SFT])
    dataset, _ = load_prepared(trained.data(Stage.COT_SFT), RowKind.SFT)
    row = dataset[0]
    asked, encoded = encode_prompt(row, processor), encode_sft(row, processor)
    assert encoded.input_ids[: len(asked.input_ids)] == asked.input_ids
    assert all(label == -100 for label in encoded.labels[: len(asked.input_ids)])
    assert processor.tokenizer.decode(asked.input_ids).endswith(EMPTY)


@pytest.mark.integration
@torch.no_grad()
def test_it_loads_in_a_fresh_process_without_siqvl(checkpoints, tmp_path):
    folder = checkpoints[Stage.DPO]
    model, processor = load_checkpoint(folder)
    inputs = dict(encode(processor, "what?", [picture(0), picture(1)]))
    torch.save(inputs, tmp_path / "inputs.pt")
    messages = json.dumps(conversation("what?", 2))
    run_fresh(
        FRESH,
        tmp_path,
        *(folder, tmp_path / "inputs.pt", tmp_path / "out.pt", messages, tmp_path / "saved"),
    )
    out = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.equal(out["logits"], model(**inputs).logits)
    assert torch.equal(out["generated"], model.generate(**inputs, max_new_tokens=4))
    assert out["tied"] is True
    assert out["text"].endswith(PLAIN + EMPTY)
    again, _ = load_checkpoint(tmp_path / "saved")
    assert torch.equal(again(**inputs).logits, out["logits"])
