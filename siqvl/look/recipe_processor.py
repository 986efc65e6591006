"""The processor of the model that a recipe trains, where its parts are on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siqvl.errors import one_line
from siqvl.recipe import Recipe
from siqvl.recipe.reading.shipped import shipped

if TYPE_CHECKING:
    from siqvl.model.processing import SiQVLProcessor


def local_processor(recipe: Recipe | None) -> tuple[SiQVLProcessor | None, str]:
    """The processor, without weights and without asking the hub; and why there is none."""
    if recipe is None:
        return None, "a recipe says whose tokens, name one with --recipe"
    # ten seconds of imports, for who asks for tokens alone
    from siqvl.model import read_processor

    model = recipe.model
    try:
        processor = read_processor(
            str(shipped(model.vision)),
            str(shipped(model.language)),
            pixel_shuffle_factor=model.pixel_shuffle_factor,
            max_image_tokens=model.max_image_tokens,
            system_prompt=model.system_prompt,
            thinking=model.thinking,
            trust_remote_code=model.trust_remote_code,
            vision_revision=model.vision_revision,
            language_revision=model.language_revision,
            local_files_only=True,
        )
    except (OSError, ValueError) as error:
        parts = f"{model.vision} and {model.language}"
        return None, f"{parts} are not on this machine ({one_line(error)[:200]})"
    return processor, ""
