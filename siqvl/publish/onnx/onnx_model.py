"""An exported model as onnxruntime runs it: NumPy in, NumPy out, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import Field

from siqvl.errors import UserError
from siqvl.stored import Stored, read_stored

if TYPE_CHECKING:
    import onnxruntime

EXPORT = "export.json"
VISION, DECODER = "vision.onnx", "decoder.onnx"
PACKAGES = "pip install 'siqvl[onnx]'"


class ExportCard(Stored):
    """What an exported folder says of itself: `export.json`."""

    checkpoint: str  # content hash
    weights: str  # fp32, int8 or int4
    opset: int
    image_size: int
    image_tokens: int
    image_token_id: int
    end_ids: list[int]
    suppressed_ids: list[int]
    layers: int
    heads: int  # of keys and values
    head_size: int
    hidden_size: int
    #: Of scores to those of PyTorch, on two prompts with pictures; the largest.
    difference: float
    files: dict[str, str] = Field(description="sha256 by name")


class Written(NamedTuple):
    """What one row wrote."""

    ids: list[int]  # without the end token
    ended: bool


class OnnxModel:
    """The two graphs of a folder.

    Args:
        folder: that `siqvl export --format onnx` wrote.
        threads: of onnxruntime; None: as many as it takes.

    Raises:
        UserError: it is none, or onnxruntime is not installed.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        missing = f"{folder} is no ONNX export: it has no {EXPORT}; `siqvl export` writes one"
        self.card = read_stored(folder / EXPORT, ExportCard, missing)
        self._vision = session(folder / VISION, threads)
        self._decoder = session(folder / DECODER, threads)
        self._inputs = [one.name for one in self._decoder.get_inputs()]

    def image_features(self, pixel_values: np.ndarray) -> np.ndarray:
        """Pixels [images, 3, H, W] -> image tokens [images, tokens_per_image, hidden]."""
        return self._vision.run(None, {"pixel_values": pixel_values.astype(np.float32)})[0]

    def scores(
        self,
        input_ids: np.ndarray,
        image_features: np.ndarray,
        attention_mask: np.ndarray,
        cache: Sequence[np.ndarray],
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Scores [batch, sequence, vocabulary] and the longer cache; see `DecoderGraph`."""
        given = [input_ids, image_features, attention_mask, *cache]
        logits, *longer = self._decoder.run(None, dict(zip(self._inputs, given, strict=True)))
        return logits, longer

    def empty_cache(self, rows: int) -> list[np.ndarray]:
        """The cache of rows that have read nothing."""
        shape = (rows, self.card.heads, 0, self.card.head_size)
        return [np.zeros(shape, np.float32) for _ in range(2 * self.card.layers)]

    def no_features(self) -> np.ndarray:
        """Image tokens of no picture, [0, hidden]."""
        return np.zeros((0, self.card.hidden_size), np.float32)

    def write(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        pixel_values: np.ndarray | None,
        max_new_tokens: int,
    ) -> list[Written]:
        """Continues prompts greedily, all side by side.

        Args:
            input_ids: [batch, sequence], padded on the left.
            pixel_values: of all pictures of the batch in reading order; None: there are none.
        """
        features, mask = self.no_features(), attention_mask.astype(np.int64)
        if pixel_values is not None:
            found = self.image_features(pixel_values)
            features = found.reshape(-1, found.shape[-1])
        cache, step = self.empty_cache(len(input_ids)), input_ids.astype(np.int64)
        ids: list[list[int]] = [[] for _ in input_ids]
        ended = np.zeros(len(input_ids), bool)
        for _ in range(max_new_tokens):
            logits, cache = self.scores(step, features, mask, cache)
            last = logits[:, -1]
            last[:, self.card.suppressed_ids] = -np.inf
            chosen = last.argmax(-1)
            ended |= np.isin(chosen, self.card.end_ids)
            for row in np.flatnonzero(~ended):
                ids[row].append(int(chosen[row]))
            if ended.all():
                break
            features, step = self.no_features(), chosen[:, None].astype(np.int64)
            mask = np.concatenate([mask, np.ones((len(mask), 1), np.int64)], 1)
        return [Written(row, bool(end)) for row, end in zip(ids, ended, strict=True)]


def session(file: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Loads one graph on the CPU.

    Raises:
        UserError: there is none, or onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(f"onnxruntime is not installed: {PACKAGES}") from None
    if not file.is_file():
        raise UserError(f"{file} is missing: export the checkpoint again")
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(file), sess_options=options, providers=["CPUExecutionProvider"]
    )
