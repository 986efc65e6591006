"""Pictures -> features of the frozen vision tower, and the key of what computes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from datasets import Dataset, Image
from torch.utils.data import DataLoader
from transformers import PretrainedConfig

from siqvl.device import autocast
from siqvl.errors import UserError
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.tensor_store import DTYPES, VERSION, Layout

Precision = Literal["fp32", "bf16", "fp16"]
#: Saving adds these to an image processor; they do not change what it does.
_HOW_TO_LOAD = ("auto_map", "processor_class")
Place = tuple[int, int]  # a row of the data set, and which of its images


@dataclass(frozen=True)
class Tower:
    """What computes features, and how they are kept."""

    model: SiQVLForConditionalGeneration
    processor: SiQVLProcessor
    precision: Precision
    layout: Layout
    pass_size: int | None  # pictures that every pass is filled up to

    @classmethod
    def frozen(
        cls,
        model: SiQVLForConditionalGeneration,
        processor: SiQVLProcessor,
        precision: Precision,
        pass_size: int | None = None,
    ) -> Tower:
        """Takes the tower of a model where and as it is.

        Args:
            pass_size: fill every pass up to so many pictures, and keep features as they are.

        Raises:
            UserError: the tower is trainable.
        """
        if not model.model.vision_tower_is_frozen:
            raise UserError(
                "cached features need a frozen vision tower, but this one is trainable; take "
                "vision_tower out of `trainable`, or set cached_features: false"
            )
        config = model.config
        weight = next(model.model.vision_tower.parameters())
        exact = pass_size is not None and weight.dtype == torch.float32
        layout = Layout(
            key=_key(model, processor, precision, pass_size),
            origin="this tower, this image processor",
            tensor="features",
            row="picture",
            names="images",
            dtype="F32" if exact else "BF16",
            shape=(config.patch_grid**2, config.vision_config.hidden_size),
        )
        return cls(model, processor, precision, layout, pass_size)

    def features(self, pixels: torch.Tensor, images: list[str]) -> torch.Tensor:
        """Turns pixels [n, 3, H, W] of `images` into [n, patches, hidden] on the CPU, of the
        layout's type.

        Raises:
            UserError: the tower gives NaN or infinite values.
        """
        tower, count = self.model.model.vision_tower, len(pixels)
        if self.pass_size is not None:
            fill = pixels[-1:].expand(self.pass_size - count, -1, -1, -1)
            pixels = torch.cat([pixels, fill])
        with torch.no_grad(), autocast(tower.device, self.precision):
            features = self.model.model.get_vision_features(pixels.to(tower.device, tower.dtype))
        features = features[:count].to(DTYPES[self.layout.dtype])
        finite = features.isfinite().all(dim=(1, 2)).tolist()
        if not all(finite):
            raise UserError(
                f"the vision tower gives NaN or infinite features in {self.precision} (picture "
                f"{images[finite.index(False)]}); use another `precision` or repair its weights"
            )
        return features.cpu()


def _key(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    precision: Precision,
    pass_size: int | None,
) -> str:
    """Digest of everything that features depend on, but for the picture."""
    general = PretrainedConfig().to_dict()  # names, labels and versions, which change no feature
    config = model.config.vision_config.to_dict()
    about = {
        "version": VERSION,
        "precision": precision,
        "config": {name: value for name, value in config.items() if name not in general},
        "image_processor": image_settings(processor),
        "implementation": type(processor.image_processor).__name__,
    }
    if pass_size is not None:  # others keep the key they always had
        about["pass"] = [pass_size, config.get("_attn_implementation")]
    return key_of(about, model.model.vision_tower.state_dict().items())


def image_settings(processor: SiQVLProcessor) -> dict[str, Any]:
    """Returns the settings of an image processor that decide the pixels it makes."""
    settings = json.loads(processor.image_processor.to_json_string())
    return {name: value for name, value in settings.items() if name not in _HOW_TO_LOAD}


def key_of(about: dict[str, Any], weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Digests settings and named weights: 32 characters, under which cached tensors are kept."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, weight in sorted(weights):
        digest.update(f"\n{name} {weight.dtype} {list(weight.shape)}\n".encode())
        plain = weight.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


class PixelBatches:
    """Pictures of a data set as the tower takes them, batch by batch; picklable for workers."""

    def __init__(
        self, dataset: Dataset, places: list[Place], processor: SiQVLProcessor, batch_size: int
    ) -> None:
        # encoded pictures, so that of a row with many only the one that is asked for is decoded
        self._rows = dataset.select_columns(["images"]).with_format("arrow")
        self._places = places
        self._image_processor = processor.image_processor
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._places) // self._batch_size)

    def __getitem__(self, batch: int) -> torch.Tensor:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        start = batch * self._batch_size
        images = [
            Image().decode_example(self._rows[row]["images"][0][number].as_py())
            for row, number in self._places[start : start + self._batch_size]
        ]
        return self._image_processor(images=images, return_tensors="pt")["pixel_values"]

    def loader(self, workers: int) -> Iterable[torch.Tensor]:
        """Gives all batches in order, made by `workers` processes, or by this one when it is 0."""
        batches: Any = self  # DataLoader takes whatever has a length and items
        return DataLoader(batches, batch_size=None, num_workers=workers)
