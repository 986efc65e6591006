"""Pictures as the language model reads them: encoded once for all players and benchmarks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from datasets import Dataset

from siqvl.data.features.build_features import cached_features
from siqvl.data.features.tower import PixelBatches, Place
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor

#: Pictures that are not needed at the moment are forgotten above this.
KEPT_BYTES = 2**30
#: Passes whose pictures are decoded while the tower works.
AHEAD = 2


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
        self._features: Mapping[str, torch.Tensor] = {}

    def keep(self, folder: Path, dataset: Dataset) -> None:
        """Looks the tower's features of a data set's pictures up in a folder, and computes what it
        lacks there: `load` reads them from then on."""
        tower = self._model.model.vision_tower.requires_grad_(False)
        self._features = cached_features(
            folder,
            dataset,
            model=self._model,
            processor=self._processor,
            precision="fp32" if tower.dtype == torch.float32 else "bf16",
            batch_size=self._batch_size,
            exact=True,
        )

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
        kept = [image for image in missing if image in self._features]
        others = [image for image in missing if image not in self._features]
        for images, features in (
            (kept, self._kept(kept)),
            (others, self._computed(dataset, [places[image] for image in others])),
        ):
            for image, tokens in zip(images, self._projected(features), strict=True):
                self._encoded[image] = tokens

    def tokens(self, hashes: Sequence[Hashable]) -> torch.Tensor:
        """Gives [images, tokens an image, text hidden] of pictures that were loaded."""
        return torch.stack([self._encoded[image] for image in hashes])

    def _computed(self, dataset: Dataset, places: list[Place]) -> Iterator[torch.Tensor]:
        """The tower's features of pictures, pass by pass; the next one's are decoded meanwhile."""
        passes = PixelBatches(dataset, places, self._processor, self._batch_size)
        with ThreadPoolExecutor(AHEAD) as threads:
            first = range(len(passes))[:AHEAD]
            coming = deque(threads.submit(passes.__getitem__, number) for number in first)
            for number in range(len(passes)):
                pixels = coming.popleft().result()
                if number + AHEAD < len(passes):
                    coming.append(threads.submit(passes.__getitem__, number + AHEAD))
                yield self._whole(pixels, self._model.model.get_vision_features)

    def _kept(self, images: list[str]) -> Iterator[torch.Tensor]:
        for start in range(0, len(images), self._batch_size):
            some = images[start : start + self._batch_size]
            yield torch.stack([self._features[image] for image in some])

    def _projected(self, passes: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        for features in passes:
            tokens = self._whole(features, self._project)
            # clones: a view would keep the whole pass in memory
            yield from (one.clone() for one in tokens)

    def _project(self, features: torch.Tensor) -> torch.Tensor:
        found = self._model.model.project_vision_features(features).pooler_output
        assert found is not None
        return found

    def _whole(
        self, pictures: torch.Tensor, work: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Works on a pass that is filled up; what comes of the filling is left out."""
        count = len(pictures)
        fill = pictures[-1:].expand(self._batch_size - count, *pictures.shape[1:])
        whole = torch.cat([pictures, fill]).to(self._model.device, self._model.dtype)
        with torch.inference_mode():
            return work(whole)[:count]

    def _forget(self, wanted: dict[str, None]) -> None:
        size = sum(one.numel() * one.element_size() for one in self._encoded.values())
        for image in list(self._encoded):
            if size <= self._kept_bytes:
                return
            if image not in wanted:
                one = self._encoded.pop(image)
                size -= one.numel() * one.element_size()
