"""Which results a changed key makes anew: too few would be stale, too many only slow."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from siqvl.evaluation.control import control_recipe
from siqvl.recipe import (
    PIPELINE,
    Adapter,
    Benchmark,
    Control,
    DataPrep,
    DPOStage,
    Evaluation,
    Model,
    Recipe,
    RewardStage,
    SampledPairs,
    Serving,
    SFTStage,
    Stage,
    Tracking,
)
from siqvl.recipe.compute import Compute, Request
from siqvl.recipe.keys import benchmarks_key, data_key, evaluation_key, pairs_key, training_key

ROOT = Path(__file__).parents[2]
STAGES = [stage.value for stage in PIPELINE]
DATA = {f"data:{stage}" for stage in STAGES}
TRAINING = {f"training:{stage}" for stage in STAGES}
ALL = {"benchmarks", "pairs", "evaluation"} | DATA | TRAINING
#: What puts questions to a checkpoint, or is about the questions.
ASKING = {"benchmarks", "pairs", "evaluation"}
NOTHING: set[str] = set()
VQA = "stages.vqa_sft"
FIRST = "evaluation.benchmarks.0"


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    content = Recipe.load(ROOT / "recipes" / "tiny.yaml").model_dump(mode="json")
    for part in ("vision", "language"):
        content["model"][part] = str(ROOT / "recipes" / "tiny_base" / part)
    return content


def keys(recipe: Recipe) -> dict[str, str]:
    found = {
        "benchmarks": benchmarks_key(recipe),
        "pairs": pairs_key(recipe),
        "evaluation": evaluation_key(recipe),
    }
    for stage in PIPELINE:
        found[f"data:{stage}"] = data_key(recipe, stage)
        found[f"training:{stage}"] = training_key(recipe, stage)
    return found


def changed_by(content: dict[str, Any], *changes: tuple[str, Any]) -> set[str]:
    """Names of the results that a recipe with other values under dotted keys has another key of."""
    before = keys(Recipe.model_validate(content))
    for key, value in changes:
        content = replaced(content, key.split("."), value)
    after = keys(Recipe.model_validate(content))
    assert before.keys() == after.keys() == ALL
    return {name for name in ALL if before[name] != after[name]}


def replaced(content: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    first, *rest = path
    if isinstance(content, list):
        number = int(first)
        return [*content[:number], replaced(content[number], rest, value), *content[number + 1 :]]
    later = {
        *Recipe.model_fields,
        *Benchmark.LATER,
        *Compute.LATER,
        *Evaluation.LATER,
        *Serving.LATER,
        *SFTStage.LATER,
        *Model.LATER,
        *Tracking.LATER,
        *Request.LATER,
    }
    assert first in content or first in later, f"no key {first}"
    return content | {first: replaced(content.get(first), rest, value)}


TABLE: list[tuple[str, Any, set[str]]] = [
    # where, by which name, on what, how it is judged and kept
    ("name", "another", NOTHING),
    ("output_dir", "elsewhere", NOTHING),
    ("changed_code", "go_on", NOTHING),
    ("changes", ["seed=1"], NOTHING),
    ("features_dir", "elsewhere", NOTHING),
    ("tracking.experiment", "another", NOTHING),
    ("tracking.uri", "http://mlflow:5000", NOTHING),
    ("tracking.model_name", "another", NOTHING),
    ("serving.max_new_tokens", 7, NOTHING),
    ("serving.batch_size", 7, NOTHING),
    ("serving.max_rows", 7, NOTHING),
    ("serving.max_request_pixels", 7, NOTHING),
    ("serving.precision", "auto", NOTHING),
    ("evaluation.champion_benchmark", None, NOTHING),
    ("tracking.spool", "elsewhere", NOTHING),
    ("tracking.patience_seconds", 7.0, NOTHING),
    ("tracking.system_metrics_seconds", None, NOTHING),
    ("tracking.samples", 3, NOTHING),
    ("tracking.samples_every", 7, NOTHING),
    ("tracking.sample_tokens", 7, NOTHING),
    ("tracking.page_every", 7, NOTHING),
    ("compute.training.memory", "64Gi", NOTHING),
    ("compute.training.gpus", 1, NOTHING),
    ("compute.evaluation.cpus", 16, NOTHING),
    ("compute.training.grace_seconds", 100, NOTHING),
    ("compute.schedule", "@daily", NOTHING),
    ("compute.system_retries", 7, NOTHING),
    ("hardware.peak_tflops", 312.0, NOTHING),
    ("hardware.threads", 7, NOTHING),
    ("evaluation.gates", [], NOTHING),
    ("evaluation.shards", 3, NOTHING),
    (f"{FIRST}.held_out", True, NOTHING),
    ("data.shards", 3, NOTHING),
    ("data.processes", 3, NOTHING),
    (f"{VQA}.saving_steps", 7, NOTHING),
    (f"{VQA}.kept_states", 7, NOTHING),
    (f"{VQA}.loader_workers", 7, NOTHING),
    (f"{VQA}.prefetch", 7, NOTHING),
    ("stages.dpo.saving_steps", 7, NOTHING),
    # all that is drawn
    ("seed", 1, ALL),
    # preparation
    ("data.duplicates", "near", DATA | {"benchmarks", "pairs"}),
    ("data.leaks", "none", DATA | {"benchmarks", "pairs"}),
    ("data.near", 4.0, DATA | {"benchmarks", "pairs"}),
    ("data.max_characters", 100, DATA | {"benchmarks", "pairs"}),
    ("data.rows_per_shard", 7, DATA | {"benchmarks", "pairs"}),
    (f"{VQA}.sources.0.max_samples", 7, {"data:vqa_sft", "training:vqa_sft"}),
    (f"{VQA}.sources.0.weight", 2.0, {"data:vqa_sft", "training:vqa_sft"}),
    (f"{VQA}.sources.1.skip", 7, {"data:vqa_sft", "training:vqa_sft"}),
    (
        "stages.dpo.sources",
        [{"kind": "shapes", "prompt_suffix": "\nBriefly."}],
        {"data:dpo", "training:dpo"},
    ),
    (
        "stages.cot_sft.sources",
        [{"kind": "shapes", "subsets": ["reasoning"], "max_samples": 9}],
        {"data:cot_sft", "training:cot_sft"},
    ),
    ("stages.dpo.sources.0.revision", "main", {"data:dpo", "training:dpo"}),
    # training
    ("stages.cot_sft.learning_rate", 0.5, {"training:cot_sft"}),
    ("stages.projector_alignment.max_steps", 7, {"training:projector_alignment"}),
    (f"{VQA}.trainable", ["projector"], {"training:vqa_sft"}),
    (f"{VQA}.learning_rates", {"projector": 0.5}, {"training:vqa_sft"}),
    (f"{VQA}.adapter", {"rank": 4}, {"training:vqa_sft"}),
    ("stages.dpo.adapter", {"targets": ["q_proj"], "alpha": 1.5}, {"training:dpo"}),
    (f"{VQA}.temperature", 2.0, {"training:vqa_sft"}),
    (f"{VQA}.batching", "packed", {"training:vqa_sft"}),
    (f"{VQA}.batch_size", 7, {"training:vqa_sft"}),
    (f"{VQA}.accumulation", 7, {"training:vqa_sft"}),
    (f"{VQA}.max_length", 77, {"training:vqa_sft"}),
    (f"{VQA}.learn_turns", "all", {"training:vqa_sft"}),
    (f"{VQA}.ema", 0.9, {"training:vqa_sft"}),
    (f"{VQA}.precision", "bf16", {"training:vqa_sft"}),
    (f"{VQA}.cached_features", False, {"training:vqa_sft"}),
    ("stages.dpo.beta", 0.7, {"training:dpo"}),
    ("stages.dpo.loss", {"hinge": 1.0}, {"training:dpo"}),
    ("stages.dpo.shared_prompt", False, {"training:dpo"}),
    ("features_batch_size", 7, TRAINING | {"evaluation"}),
    ("distributed", {"enabled": True, "processes": 2}, TRAINING),
    # the model
    *(
        (f"model.{key}", value, TRAINING | {"pairs", "evaluation"})
        for key, value in {
            "vision": "google/siglip-base-patch16-224",
            "language": "Qwen/Qwen2.5-0.5B-Instruct",
            "vision_revision": "main",
            "language_revision": "main",
            "init": "config",
            "random_tower": True,
            "pixel_shuffle_factor": 2,
            "max_image_tokens": 16,
            "attention": "sdpa",
            "system_prompt": None,
            "thinking": True,
            "trust_remote_code": True,
        }.items()
    ),
    ("evaluation.precision", "bf16", {"pairs", "evaluation"}),
    # sampled pairs; what they weigh is in the data that comes of it, see tests/data/test_content.py
    ("stages.dpo.sampled.samples", 7, {"pairs"}),
    ("stages.dpo.sampled.temperature", 0.5, {"pairs"}),
    ("stages.dpo.sampled.weight", 2.0, {"pairs"}),
    ("stages.dpo.sampled.source.max_samples", 7, {"pairs"}),
    ("stages.dpo.sampled.batch_size", 7, {"pairs"}),
    # evaluation
    (f"{FIRST}.source.max_samples", 7, ASKING),
    (f"{FIRST}.training.max_samples", 7, ASKING),
    (f"{FIRST}.scorer", "anls", ASKING),
    (f"{FIRST}.prompt_suffix", "!", ASKING),
    ("evaluation.benchmarks.1.blind", [], ASKING),  # no gate is about it
    (f"{FIRST}.max_new_tokens", 7, ASKING),
    ("evaluation.batch_size", 7, {"evaluation"}),
    ("evaluation.report_pictures", 7, {"evaluation"}),
]


def shown(value: Any) -> str:
    """An id that is the same in every process: sets have no order."""
    return str(sorted(value) if isinstance(value, set) else value)[:40]


@pytest.mark.parametrize(("key", "value", "expected"), TABLE, ids=shown)
def test_a_changed_key_changes_what_depends_on_it(
    tiny: dict[str, Any], key: str, value: Any, expected: set[str]
) -> None:
    assert changed_by(tiny, (key, value)) == expected


def test_an_unchanged_recipe_changes_nothing(tiny: dict[str, Any]) -> None:
    assert changed_by(tiny) == NOTHING


def test_stages_of_equal_figures_share_no_rows_by_key_alone(tiny: dict[str, Any]) -> None:
    """The stage is an input of its own; its keys are about the figures."""
    same = replaced(tiny, ["stages", "cot_sft"], tiny["stages"]["vqa_sft"])
    recipe = Recipe.model_validate(same)
    assert data_key(recipe, Stage.VQA_SFT) == data_key(recipe, Stage.COT_SFT)


#: Of each section, the keys that a row of the table need not name, and why.
UNNAMED: dict[type, dict[str, str]] = {
    Recipe: {
        "evaluation": "",
        "model": "",
        "stages": "",
        "data": "",
        "tracking": "",
        "serving": "",
        "compute": "",
        "hardware": "",
    },
    Model: {},
    DataPrep: {"max_image_pixels": "as max_characters", "max_images": "", "max_quarantined": ""},
    SFTStage: {
        name: "a figure of training as those named"
        for name in (
            "epochs",
            "pack_length",
            "pack_images",
            "warmup_ratio",
            "lr_schedule",
            "weight_decay",
            "max_grad_norm",
            "adam_beta2",
            "max_images",
            "allow_fp16",
            "gradient_checkpointing",
            "compile",
            "head_chunk",
            "logging_steps",
        )
    },
    Adapter: {name: "a stage's `adapter` is named" for name in Adapter.model_fields},
    DPOStage: {
        "reference_batch_size": "",
        "sampled": "its keys are named",
        "likelihood_control": "marks a control, which another loss makes",
    },
    RewardStage: {"free_tokens": "as max_new_tokens, where there is a reward for it"},
    SampledPairs: {
        name: "as those named"
        for name in ("prompt_suffix", "answer_marker", "scorer", "max_new_tokens", "max_pairs")
    },
    Evaluation: {
        "benchmarks": "its keys are named",
        "random_tower": "adds steps, changes none",
        "likelihood_control": "adds steps, changes none",
    },
    Compute: {"data": "as the other kinds"},
}


@pytest.mark.parametrize("section", UNNAMED, ids=lambda section: section.__name__)
def test_a_new_key_has_to_be_thought_about(section: type) -> None:
    """Whoever adds a key says here what depends on it."""
    named = {part for key, _, _ in TABLE for part in key.split(".")}
    if section in (DPOStage, RewardStage):
        named |= {part for key, _, _ in REWARDS for part in key.split(".")}
        named |= SFTStage.model_fields.keys()
    assert section.model_fields.keys() - named - UNNAMED[section].keys() == set()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weight_decay", 0.5),
        ("adam_beta2", 0.5),
        ("lr_schedule", "linear"),
        ("warmup_ratio", 0.5),
        ("max_grad_norm", 0.5),
        ("max_images", 7),
        ("compile", True),
        ("gradient_checkpointing", True),
        ("head_chunk", 7),
        ("logging_steps", 7),
        ("pack_length", 777),
        ("allow_fp16", True),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_figures_of_a_stage_change_its_training_alone(
    tiny: dict[str, Any], stage: str, key: str, value: Any
) -> None:
    assert changed_by(tiny, (f"stages.{stage}.{key}", value)) == {f"training:{stage}"}


def test_epochs_in_place_of_steps_are_another_training(tiny: dict[str, Any]) -> None:
    figures = tiny["stages"]["vqa_sft"] | {"max_steps": None, "epochs": 1.0}
    assert changed_by(tiny, (VQA, figures)) == {"training:vqa_sft"}


REWARDS: list[tuple[str, Any, set[str]]] = [
    *((f"stages.rlvr.{key}", value, {"training:rlvr"}) for key, value in {
        "prompt_suffix": "!",
        "answer_marker": "So:",
        "scorer": "vqav2",
        "group_size": 4,
        "sampling_temperature": 0.5,
        "max_new_tokens": 7,
        "places": 7,
        "rewards": {"answer": 2.0},
        "scale_rewards": "none",
        "loss": "grpo",
        "beta": 0.5,
        "learning_rate": 0.5,
    }.items()),
    ("stages.rlvr.sources.0.skip", 7, {"data:rlvr", "training:rlvr"}),
    ("stages.rlvr.saving_steps", 7, NOTHING),
    ("stages.cot_sft.learning_rate", 0.5, {"training:cot_sft"}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "expected"), REWARDS, ids=shown)
def test_a_key_of_the_stage_of_rewards_changes_that_stage_alone(
    key: str, value: Any, expected: set[str]
) -> None:
    content = Recipe.load(ROOT / "recipes" / "rewards.yaml").model_dump(mode="json")

    def found(recipe: Recipe) -> dict[str, str]:
        rewards = {
            "data:rlvr": data_key(recipe, Stage.RLVR),
            "training:rlvr": training_key(recipe, Stage.RLVR),
        }
        return keys(recipe) | rewards

    before = found(Recipe.model_validate(content))
    after = found(Recipe.model_validate(replaced(content, key.split("."), value)))
    assert {name for name in before if before[name] != after[name]} == expected


def test_a_recipe_without_the_stage_of_rewards_is_stored_as_before(tiny: dict[str, Any]) -> None:
    """Its hash, and the keys of its results, are those of before there was such a stage."""
    assert "rlvr" not in tiny["stages"]
    assert all("rlvr" not in one["stages"] for one in tiny["evaluation"]["benchmarks"])
    assert Benchmark.model_fields["stages"].default == list(PIPELINE)


@pytest.mark.parametrize("kind", Control)
def test_a_control_is_another_training_and_another_evaluation(
    tiny: dict[str, Any], kind: Control
) -> None:
    recipe = Recipe.model_validate(tiny)
    control = control_recipe(recipe, kind)
    assert training_key(control, kind.stage) != training_key(recipe, kind.stage)
    assert evaluation_key(control) != evaluation_key(recipe)
    assert data_key(control, kind.stage) == data_key(recipe, kind.stage)


def test_another_model_under_the_same_path_is_another(tiny: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "vision"
    shutil.copytree(tiny["model"]["vision"], folder)
    recipe = Recipe.model_validate(replaced(tiny, ["model", "vision"], str(folder)))
    before = keys(recipe)
    assert keys(recipe) == before
    with (folder / "config.json").open("a") as file:
        file.write("\n")
    after = keys(recipe)
    changed = {name for name in ALL if before[name] != after[name]}
    assert changed == TRAINING | {"pairs", "evaluation"}


def test_keys_are_the_same_in_every_process(tiny: dict[str, Any]) -> None:
    """Sets and dicts have an order of their own in each."""
    code = (
        "import json, sys; from siqvl.recipe.keys import *; from siqvl.recipe import Recipe\n"
        "recipe = Recipe.model_validate(json.load(sys.stdin))\n"
        "print(training_key(recipe, Stage.DPO))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(tiny),
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {training_key(Recipe.model_validate(tiny), Stage.DPO)}
