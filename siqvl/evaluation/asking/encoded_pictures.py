"""Pictures as the language model reads them: encoded once for all players and benchmarks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

import torch
from datasets import Dataset

from siqvl.data.features.tower import PixelBatches
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor

#: Pictures that are not needed at the moment are forgotten above this.
KEPT_BYTES = 2**30


class EncodedPictures:
    """Image tokens by picture hash, as tower and projector make them.

    Passes are always of the same size, filled up with the last picture: on a GPU the size of a
    batch decides how sums are ordered, and a picture's tokens shall not depend on its company.

    Args:
        batch_size: pictures in one pass of the tower.
        kept_bytes: see KEPT_BYTES.
    """

    def __init__(
        self,
        model: SiQVLForConditionalGeneration,
        processor: SiQVLProcessor,
        batch_size: int,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._model = model
        self._processor = processor
        self._batch_size = batch_size
        self._kept_bytes = kept_bytes
        self._encoded: dict[Hashable, torch.Tensor] = {}  # oldest first

    def load(
        self, hashes: Iterable[str], dataset: Dataset, places: dict[str, tuple[int, int]]
    ) -> None:
        """Encodes what is not there yet.

        Args:
            hashes: the pictures that are asked for next.
            dataset: rows with a column `images`.
            places: hash -> a row that has the picture, and its number among the row's images.
        """
        wanted = dict.fromkeys(hashes)
        self._forget(wanted)
        missing = [image for image in wanted if image not in self._encoded]
        passes = PixelBatches(
            dataset, [places[image] for image in missing], self._processor, self._batch_size
        )
        for image, tokens in zip(missing, self._tokens(passes), strict=True):
            self._encoded[image] = tokens

    def tokens(self, hashes: Sequence[Hashable]) -> torch.Tensor:
        """Gives [images, tokens an image, text hidden] of pictures that were loaded."""
        return torch.stack([self._encoded[image] for image in hashes])

    def _tokens(self, passes: PixelBatches) -> Iterator[torch.Tensor]:
        for number in range(len(passes)):
            pixels = passes[number]
            count = len(pixels)
            fill = pixels[-1:].expand(self._batch_size - count, -1, -1, -1)
            whole = torch.cat([pixels, fill]).to(self._model.device)
            with torch.inference_mode():
                found = self._model.get_image_features(whole, return_dict=True)
            assert found.pooler_output is not None
            # clones: a view would keep the whole pass in memory
            yield from (tokens.clone() for tokens in found.pooler_output[:count])

    def _forget(self, wanted: dict[str, None]) -> None:
        size = sum(one.numel() * one.element_size() for one in self._encoded.values())
        for image in list(self._encoded):
            if size <= self._kept_bytes:
                return
            if image not in wanted:
                one = self._encoded.pop(image)
                size -= one.numel() * one.element_size()
