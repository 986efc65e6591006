"""The models: tower and language model as folders, and the checkpoint a stage continues from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.training.scenario import ROOT, ModelName, Scenario, recipe_for
from siqvl.recipe import Recipe, Stage
from siqvl.stages import STAGES

if TYPE_CHECKING:
    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor

#: Width 256 and 6 layers behind Qwen's own vocabulary of 151,936: 56 million weights, of which 39
#: million are embeddings, and a tower of 11 million. Random: speed does not depend on them.
LANGUAGE_50M = {
    "vocab_size": 151_936,
    "hidden_size": 256,
    "intermediate_size": 1_024,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2_048,
    "tie_word_embeddings": True,
}
#: Qwen2.5-0.5B's shape, behind the tower of 50m.
LANGUAGE_05B = LANGUAGE_50M | {
    "hidden_size": 896,
    "intermediate_size": 4_864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
}
LANGUAGES = {"50m": LANGUAGE_50M, "0.5b": LANGUAGE_05B}
VISION_50M = {
    "hidden_size": 384,
    "intermediate_size": 1_536,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "image_size": 224,
    "patch_size": 16,
}
FULL = {
    "vision/config.json": "TRANSCRIBED_siglip-so400m-patch14-384.config.json",
    "vision/preprocessor_config.json": (
        "TRANSCRIBED_siglip-so400m-patch14-384.preprocessor_config.json"
    ),
    "language/config.json": "Qwen2.5-0.5B-Instruct.config.json",
}


def make_parts(model: ModelName, folder: Path) -> None:
    """Write `vision/` and `language/` as `siqvl.model.assemble` reads them.

    `tiny` is recipes/tiny_base; the others take Qwen2.5's tokenizer, and `full` the published
    configs, from the folder that SIQVL_REAL_DATA names.
    """
    if folder.exists():
        return
    made = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(made, ignore_errors=True)
    base = ROOT / "recipes" / "tiny_base"
    if model == "tiny":
        shutil.copytree(base, made)
        made.rename(folder)
        return
    for part in ("vision", "language"):
        (made / part).mkdir(parents=True)
    published = real_data()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(published / "qwen2.5_tokenizer" / name, made / "language")
    if model == "full":
        for name, source in FULL.items():
            shutil.copy(published / "model_configs" / source, made / name)
    else:
        from transformers import Qwen2Config, SiglipVisionConfig

        Qwen2Config(**LANGUAGES[model]).save_pretrained(made / "language")
        SiglipVisionConfig(**VISION_50M).save_pretrained(made / "vision")
        settings = json.loads((base / "vision" / "preprocessor_config.json").read_text())
        side = VISION_50M["image_size"]
        settings["size"] = {"height": side, "width": side}
        (made / "vision" / "preprocessor_config.json").write_text(json.dumps(settings))
    made.rename(folder)


def real_data() -> Path:
    """The folder of published files."""
    folder = os.environ.get("SIQVL_REAL_DATA")
    if not folder or not (Path(folder) / "qwen2.5_tokenizer").is_dir():
        raise click.UsageError(
            "models with Qwen's own vocabulary need SIQVL_REAL_DATA, a folder that holds "
            "qwen2.5_tokenizer/ and model_configs/; or take --model tiny"
        )
    return Path(folder)


def make_parent(scenario: Scenario, sources: list[dict[str, Any]]) -> None:
    """The checkpoint both sides load, made by assembling the parts as stage 1 does.

    Its language model has bfloat16's values, as Qwen's published weights have.
    """
    if scenario.parent is None or scenario.parent.exists():
        return
    from transformers import set_seed

    recipe = recipe_for(scenario, sources, {}, scenario.work)
    set_seed(recipe.seed)
    model, processor = load(scenario, recipe, None)
    for weight in model.model.language_model.parameters():
        weight.data = weight.data.bfloat16().float()
    parent = STAGES[scenario.recipe_stage].parents[0]
    write_untrained(scenario.parent, model, processor, parent, recipe)


def write_untrained(
    place: Path,
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    stage: Stage,
    recipe: Recipe,
) -> None:
    """Writes a checkpoint of weights as they are, under the name of a stage."""
    from siqvl.checkpoint import write_checkpoint
    from siqvl.version import code_version

    write_checkpoint(
        place,
        model,
        processor,
        stage=stage,
        parent=None,
        recipe=recipe,
        data_fingerprint="none: these weights were not trained",
        code_version=code_version(),
        mlflow_run=None,
        metrics={},
        history=[],
    )


def load(
    scenario: Scenario, recipe: Recipe, checkpoint: Path | None
) -> tuple[SiQVLForConditionalGeneration, SiQVLProcessor]:
    """The model as a stage of ours loads it: a checkpoint, or the parts assembled."""
    from siqvl.training import stage_process as run

    return run._load_model(recipe, checkpoint, run.attention_of(recipe, scenario.recipe_stage))
