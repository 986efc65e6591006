"""A stage with adapters from end to end: what it leaves, resumes from, and does not touch."""

import json
import math
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from siqvl.adapters import quantize
from siqvl.checkpoint import CARD, read_card, read_history, verify_checkpoint
from siqvl.errors import UserError
from siqvl.model.assemble import load_checkpoint
from siqvl.publish.stage_table import StageRow
from siqvl.recipe import Recipe, Stage
from siqvl.stages import part_of
from siqvl.training.loop.ema import WeightMean
from siqvl.training.resuming import Provenance
from siqvl.training.stage import train_stage
from tests.model.tiny_siqvl import encode, picture
from tests.training.changed_recipe import changed
from tests.training.stopping import stopped_after

ADAPTER = {"rank": 4, "alpha": 8.0}
STEEP = {"learning_rate": 3e-2, "max_steps": 6, "adapter": ADAPTER}


def train(trained, stage: Stage, out: Path, **figures: object) -> Path:
    recipe = changed(trained.recipe, stage, **(STEEP | figures))
    train_stage(
        stage, recipe, data=trained.data(stage), checkpoint=trained.parent(stage), output=out
    )
    return out


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


@pytest.fixture(scope="module")
def tuned(trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(trained, Stage.VQA_SFT, tmp_path_factory.mktemp("tuned") / "checkpoint")


def test_what_has_no_adapter_and_does_not_learn_stays_bit_for_bit(trained, tuned: Path) -> None:
    before, after = weights(trained.checkpoint(Stage.PROJECTOR_ALIGNMENT)), weights(tuned)
    assert after.keys() == before.keys()
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {
        name for name in before if "language_model.layers" in name and name.endswith("_proj.weight")
    }
    assert differing == linear | {name for name in before if part_of(name) == "projector"}


def test_peft_gives_the_same_model_from_the_parent_and_the_adapter(trained, tuned: Path) -> None:
    """And the merged checkpoint is a checkpoint as any other."""
    card = verify_checkpoint(tuned, Stage.VQA_SFT)
    assert not any(name.startswith("adapter") for name in card.files)
    merged, processor = load_checkpoint(tuned)
    base, _ = load_checkpoint(trained.checkpoint(Stage.PROJECTOR_ALIGNMENT))
    inputs = encode(processor, "what color is it?", [picture(0)])
    with torch.no_grad():
        plain = base(**inputs).logits
        expected = merged(**inputs).logits
        again = peft.PeftModel.from_pretrained(base, tuned / "adapter").eval()
        found = again(**inputs).logits
    assert (expected - plain).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    written = again.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert torch.equal(written, merged.generate(**inputs, max_new_tokens=5, do_sample=False))
    config = json.loads((tuned / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"].endswith(card.parent)
    assert config["modules_to_save"] == ["multi_modal_projector"]


def test_without_its_folder_the_checkpoint_is_the_same(tuned: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tuned, copy, ignore=shutil.ignore_patterns("adapter"))
    assert verify_checkpoint(copy).hash == read_card(tuned).hash
    assert (copy / CARD).is_file()


def test_its_model_card_says_what_learnt_how(trained, tuned: Path) -> None:
    cells = [StageRow(read_card(one)).cells for one in (tuned, trained.checkpoint(Stage.VQA_SFT))]
    assert [one[2] for one in cells] == [
        "projector, language model by LoRA",
        "projector, language model",
    ]


@pytest.mark.parametrize(
    ("stage", "figures"),
    [
        (Stage.VQA_SFT, {"ema": 0.5, "adapter": ADAPTER | {"dropout": 0.3}}),
        (Stage.COT_SFT, {"precision": "bf16", "batching": "packed", "max_length": 150}),
        (Stage.DPO, {"learning_rates": {"projector": 1e-3}, "gradient_checkpointing": True}),
    ],
    ids=["mean, dropout", "bf16, packed", "pairs, two rates"],
)
def test_a_killed_run_goes_on_bit_for_bit(
    trained, tmp_path: Path, stage: Stage, figures: dict
) -> None:
    figures = {"saving_steps": 2, "learning_rate": 1e-3, **figures}
    straight = train(trained, stage, tmp_path / "straight", **figures)
    with stopped_after(5), pytest.raises(RuntimeError, match="killed"):
        train(trained, stage, tmp_path / "resumed", **figures)
    (state,) = tmp_path.glob(".resumed.training-*/attempt-*/checkpoint-4")
    assert "peft" in Provenance.of(state).libraries
    with safe_open(state / "model.safetensors", framework="pt") as held:
        assert all(".lora_" in name or part_of(name) == "projector" for name in held.keys())  # noqa: SIM118
        learned = sum(math.prod(held.get_slice(name).get_shape()) for name in held.keys())  # noqa: SIM118
    copies = 4 if "ema" in figures else 3  # weights, two moments of each, their mean
    assert sum(file.stat().st_size for file in state.iterdir()) < copies * 4 * learned + 120_000
    resumed = train(trained, stage, tmp_path / "resumed", **figures)
    for name, value in weights(straight).items():
        assert torch.equal(weights(resumed)[name], value), name
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        one, two = (folder / "adapter" / file for folder in (straight, resumed))
        assert one.read_bytes() == two.read_bytes()
    curves = [
        [(entry["step"], entry["loss"]) for entry in read_history(folder)]
        for folder in (straight, resumed)
    ]
    assert curves[0] == curves[1]
    if stage is Stage.DPO:
        assert curves[0][0][1] == pytest.approx(math.log(2), abs=1e-6)


def test_the_reference_is_the_start_of_the_stage_after_a_resume_too(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its values are asked for again by a run that goes on, with no cache to find them in."""
    from siqvl.training.preference import dpo

    found = []
    compute = dpo.reference_log_probs

    def kept(folder, *arguments, **options):
        found.append(compute(tmp_path / f"cache-{len(found)}", *arguments, **options))
        return found[-1]

    monkeypatch.setattr(dpo, "reference_log_probs", kept)
    figures = {"saving_steps": 2, "max_steps": 4}
    with stopped_after(3), pytest.raises(RuntimeError, match="killed"):
        train(trained, Stage.DPO, tmp_path / "a", **figures)
    train(trained, Stage.DPO, tmp_path / "a", **figures)
    full = changed(trained.recipe, Stage.DPO, max_steps=1)
    train_stage(
        Stage.DPO,
        full,
        data=trained.data(Stage.DPO),
        checkpoint=trained.parent(Stage.DPO),
        output=tmp_path / "full",
    )
    first, resumed, in_full = found
    assert (first == resumed)[~torch.isnan(torch.tensor(first)).numpy()].all()
    seen = ~(torch.tensor(first).isnan() | torch.tensor(in_full).isnan()).numpy()
    assert seen.any()
    assert (first == in_full)[seen].all()


def test_reference_values_of_full_training_serve_adapters(trained, tmp_path: Path) -> None:
    """They are kept under a key of the weights that both start from."""
    recipe = changed(trained.recipe, Stage.DPO, max_steps=2)
    content = recipe.model_dump(mode="json") | {"features_dir": str(tmp_path / "features")}
    for name, adapter in (("full", None), ("adapters", ADAPTER)):
        content["stages"]["dpo"]["adapter"] = adapter
        train_stage(
            Stage.DPO,
            Recipe.model_validate(content),
            data=trained.data(Stage.DPO),
            checkpoint=trained.parent(Stage.DPO),
            output=tmp_path / name,
        )
    assert len(list((tmp_path / "features" / "reference-log-probs").iterdir())) == 1


def test_in_bf16_the_merge_starts_from_the_weights_of_the_parent(trained, tmp_path: Path) -> None:
    """Rounded weights are in no merge: the change is B A, and what is frozen is as it was."""
    out = train(trained, Stage.VQA_SFT, tmp_path / "out", precision="bf16")
    before, after = weights(trained.checkpoint(Stage.PROJECTOR_ALIGNMENT)), weights(out)
    learnt = load_file(out / "adapter" / "adapter_model.safetensors")
    name = "model.language_model.layers.0.mlp.down_proj"
    down, up = (learnt[f"base_model.model.{name}.lora_{one}.weight"] for one in "AB")
    assert up.dtype == down.dtype == torch.float32
    expected = before[f"{name}.weight"] + 2.0 * up @ down
    assert not torch.equal(before[f"{name}.weight"], after[f"{name}.weight"])
    torch.testing.assert_close(after[f"{name}.weight"], expected, atol=1e-6, rtol=1e-6)
    same = "model.language_model.layers.0.self_attn.q_proj.bias"
    assert torch.equal(before[same], after[same])
    assert all(value.dtype == torch.float32 for value in after.values())


def test_the_mean_is_over_what_learns(trained, tmp_path: Path, monkeypatch) -> None:
    followed: list[str] = []
    to_model = WeightMean.to_model

    def noted(mean: WeightMean) -> None:
        followed.extend(mean._weights)
        to_model(mean)

    monkeypatch.setattr(WeightMean, "to_model", noted)
    train(trained, Stage.VQA_SFT, tmp_path / "out", ema=0.5, max_steps=2)
    assert any(".lora_B." in name for name in followed)
    assert all(".lora_" in name or part_of(name) == "projector" for name in followed)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantized_weights_are_refused_where_there_is_no_gpu_for_them(
    trained, tmp_path: Path, kind: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=rf"adapter.quantize: {kind} needs a CUDA GPU") as caught:
        train(trained, Stage.VQA_SFT, tmp_path / "out", adapter=ADAPTER | {"quantize": kind})
    assert "\n" not in caught.value.message
    assert not list(tmp_path.iterdir())  # before any work


def test_quantized_weights_need_the_package_and_whole_weights(
    trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"adapter": ADAPTER | {"quantize": "nf4"}}
    recipe = changed(trained.recipe, Stage.VQA_SFT, **figures)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package bitsandbytes"):
        quantize.check_quantize(recipe, Stage.VQA_SFT)
    monkeypatch.setattr(quantize, "find_spec", lambda name: name)
    quantize.check_quantize(recipe, Stage.VQA_SFT)
    content = recipe.model_dump(mode="json")
    content["distributed"] |= {"enabled": True, "processes": 2, "strategy": "fsdp"}
    with pytest.raises(UserError, match=r"set distributed\.strategy: ddp"):
        quantize.check_quantize(Recipe.model_validate(content), Stage.VQA_SFT)
