"""The pictures of a portion as the language model reads them: encoded once, and then forgotten."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from siqvl.model.modeling import SiQVLForConditionalGeneration


class PictureTokens:
    """Image tokens by the names of pictures."""

    def __init__(self, model: SiQVLForConditionalGeneration) -> None:
        self._model = model
        self._pixels: dict[Hashable, torch.Tensor] = {}
        self._tokens: dict[Hashable, torch.Tensor] = {}

    def begin(self, pixels: dict[Hashable, torch.Tensor]) -> None:
        """Takes the pictures of a portion; what the last one shares with it stays encoded.

        Args:
            pixels: name -> [3, image_size, image_size].
        """
        self._pixels = pixels
        self._tokens = {name: one for name, one in self._tokens.items() if name in pixels}

    def __call__(self, names: Sequence[Hashable]) -> torch.Tensor:
        """Gives [pictures, tokens a picture, hidden]."""
        missing = [name for name in dict.fromkeys(names) if name not in self._tokens]
        if missing:
            batch = torch.stack([self._pixels[name] for name in missing])
            batch = batch.to(self._model.device, self._model.dtype)
            with torch.inference_mode():
                made = self._model.get_image_features(batch, return_dict=True).pooler_output
            assert made is not None
            self._tokens.update(zip(missing, made, strict=True))
        return torch.stack([self._tokens[name] for name in names])
