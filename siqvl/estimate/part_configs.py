"""The config of the model that a recipe names, without its weights and without the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from siqvl.errors import UserError, one_line
from siqvl.estimate.published_parts import published_language, published_vision
from siqvl.recipe import Recipe
from siqvl.recipe.reading.shipped import shipped


def model_config(recipe: Recipe, attention: str) -> tuple[Any, list[str]]:
    """The model's config, and where its parts are from, in words.

    Args:
        attention: the kernel, resolved.

    Returns:
        `SiQVLConfig`; of `vision` and `language`: a folder, the hub's cache, or what is published.

    Raises:
        UserError: a part is neither on this machine nor among those known here.
    """
    from siqvl.model.configuration import SiQVLConfig
    from siqvl.model.decoders import decoder_of

    spec = recipe.model
    vision, from_vision = _part("vision", spec.vision, spec.vision_revision, published_vision)
    text, from_text = _part("language", spec.language, spec.language_revision, published_language)
    vision = getattr(vision, "vision_config", vision)  # of a full SigLIP
    try:
        decoder_of(text)
        config = SiQVLConfig(
            vision_config=vision,
            text_config=text,
            pixel_shuffle_factor=spec.pixel_shuffle_factor,
            max_image_tokens=spec.max_image_tokens,
            image_token_id=text.vocab_size - 1,  # whichever: no id is looked at
        )
    except ValueError as error:
        raise UserError(one_line(error)) from None
    config._attn_implementation = attention
    return config, [from_vision, from_text]


def _part(
    key: str, name: str, revision: str | None, published: Callable[[str], dict[str, Any] | None]
) -> tuple[Any, str]:
    from transformers import AutoConfig

    place = shipped(name)
    if Path(place).is_dir():
        try:
            return AutoConfig.from_pretrained(place, local_files_only=True), str(name)
        except (OSError, ValueError) as error:
            raise UserError(
                f"model.{key}: {name} has no config to read: {one_line(error)}"
            ) from None
    try:
        found = AutoConfig.from_pretrained(name, revision=revision, local_files_only=True)
        return found, f"{name} (the hub's cache)"
    except (OSError, ValueError):
        known = published(name)
    if known is None:
        raise UserError(
            f"model.{key}: the config of {name} is not known without the hub: "
            f"`hf download {name} config.json` keeps it on this machine, or name a folder"
        )
    return AutoConfig.for_model(**known), f"{name} (as published)"
