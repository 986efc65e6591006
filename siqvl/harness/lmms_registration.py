"""What SiQ-VL tells lmms-eval of itself, by the entry point group `lmms_eval.models`."""

from __future__ import annotations

from typing import Any


def siqvl_manifest() -> Any:
    """Makes the `ModelManifest` of `lmms-eval --model siqvl`: lmms-eval calls this when it starts.

    Tasks of messages come to the chat model; `--force_simple` takes the other one, which lmms-eval
    needs for the multiple choice of its `output_type: multiple_choice`.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    models = "siqvl.harness.lmms_models"
    return ModelManifest(
        model_id="siqvl",
        chat_class_path=f"{models}.SiQVLChat",
        simple_class_path=f"{models}.SiQVLSimple",
    )
