"""Shapes of a SiQ-VL model: the patch grid, the pixel shuffle, the tokens an image costs.

This file travels inside every checkpoint (`trust_remote_code`), so it imports nothing else of
siqvl.
"""

import copy
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


def derive_pixel_shuffle_factor(patch_grid: int, max_image_tokens: int) -> int:
    """Smallest divisor r of the grid, 1 < r < grid, that gives at most `max_image_tokens` tokens.

    27 x 27 patches, budget 256: r=3 -> 81 tokens. 16 x 16: budget 64 -> r=2, budget 16 -> r=4.
    r = grid would squeeze a whole picture into one token, so it is never chosen unasked: a prime
    grid (for example 37 x 37) admits no factor.

    Raises:
        ValueError: no divisor fits; the message names the grid and the budget.
    """
    for factor in range(2, patch_grid):
        if patch_grid % factor == 0 and (patch_grid // factor) ** 2 <= max_image_tokens:
            return factor
    raise ValueError(
        f"The patch grid {patch_grid}x{patch_grid} has no divisor between 1 and {patch_grid} that "
        f"brings an image to at most max_image_tokens={max_image_tokens} tokens; raise the budget, "
        "choose another image size, or set pixel_shuffle_factor."
    )


class SiQVLConfig(PreTrainedConfig):
    """A SigLIP vision config, a decoder's text config, and what joins them.

    Args:
        vision_config: `SiglipVisionConfig` or its dict. Its `vision_use_head` is set to False: the
            language model reads every patch, so the tower's pooling head is not built.
        text_config: of a decoder that transformers has, or its dict with `model_type`. Which ones
            siqvl can assemble and train is `siqvl.model.decoders`; a checkpoint needs no list.
        pixel_shuffle_factor: side r of the square of patches folded into one token. None derives
            it, see `derive_pixel_shuffle_factor`; the derived number is what gets saved.
        max_image_tokens: the budget used by that derivation, and by nothing else.
        image_token_id: id of `<|image_pad|>`, the placeholder that image features replace.
        tie_word_embeddings: None takes the text config's value; a bool overrides it there too.

    Raises:
        ValueError: a tower of another family, non-square image, factor that does not divide the
            grid, or a placeholder id outside the vocabulary.
    """

    model_type = "siqvl"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="siglip_vision_model"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
    }

    vision_config: Any = None
    text_config: Any = None
    pixel_shuffle_factor: int | None = None
    max_image_tokens: int = 256
    image_token_id: int = 151655
    tie_word_embeddings: bool | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        found = self.vision_config.model_type
        if found != "siglip_vision_model":
            raise ValueError(
                f"vision_config has model_type '{found}', expected 'siglip_vision_model'."
            )
        if self.vision_config.vision_use_head:
            # Copied first: the caller's config may still describe a tower that has its head.
            self.vision_config = copy.deepcopy(self.vision_config)
            self.vision_config.vision_use_head = False
        # The top config decides (transformers ties by it); the text config must not contradict it.
        if self.tie_word_embeddings is None:
            self.tie_word_embeddings = self.text_config.tie_word_embeddings
        self.text_config.tie_word_embeddings = self.tie_word_embeddings
        self._resolve_pixel_shuffle()
        if not 0 <= self.image_token_id < self.text_config.vocab_size:
            raise ValueError(
                f"image_token_id={self.image_token_id} lies outside the vocabulary of "
                f"{self.text_config.vocab_size} tokens."
            )

    def _resolve_pixel_shuffle(self) -> None:
        for name in ("image_size", "patch_size"):
            found = getattr(self.vision_config, name)
            if not isinstance(found, int):
                raise ValueError(f"vision_config.{name} must be one int (square), got {found}.")
        if self.pixel_shuffle_factor is None:
            self.pixel_shuffle_factor = derive_pixel_shuffle_factor(
                self.patch_grid, self.max_image_tokens
            )
        if self.pixel_shuffle_factor < 1 or self.patch_grid % self.pixel_shuffle_factor:
            raise ValueError(
                f"pixel_shuffle_factor={self.pixel_shuffle_factor} does not divide the patch grid "
                f"side {self.patch_grid}."
            )

    @property
    def patch_grid(self) -> int:
        """Patches along one side of an image; the tower drops pixels left over at the border."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def tokens_per_image(self) -> int:
        """Placeholders an image takes in the language model's sequence."""
        return (self.patch_grid // self._factor) ** 2

    @property
    def projector_input_size(self) -> int:
        """Channels of one token after the pixel shuffle."""
        return self.vision_config.hidden_size * self._factor**2

    @property
    def _factor(self) -> int:
        assert self.pixel_shuffle_factor is not None  # resolved when the config was made
        return self.pixel_shuffle_factor


__all__ = ["SiQVLConfig"]
