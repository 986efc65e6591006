"""Tower features on disk, looked up by picture."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.data.features.feature_shards import (
    SUFFIX,
    BadShard,
    Shape,
    Shard,
    map_shard,
    read_shard,
    verify_shard,
)

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

VERIFYING_THREADS = 4


class FeatureCache(Mapping[str, "torch.Tensor"]):
    """Hash of a picture (`image_hashes` of a row) -> its features, bf16 [patches, hidden].

    What it returns is a view of the mapped file, without a copy: do not change it in place. It
    pickles as a list of files, which a loader's worker maps for itself.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        self._maps: dict[int, memoryview] = {}
        self._places = {
            image: (number, row)
            for number, shard in enumerate(self.shards)
            for row, image in enumerate(shard.images)
        }

    def __getitem__(self, image: str) -> torch.Tensor:
        import torch

        if image not in self._places:
            raise KeyError(f"no features of picture {image} are in this cache")
        number, row = self._places[image]
        shard = self.shards[number]
        if number not in self._maps:
            self._maps[number] = map_shard(shard)
        # a tensor of its own size: a slice of the whole shard would be sent whole to a process
        return torch.frombuffer(
            self._maps[number],
            dtype=torch.bfloat16,
            count=math.prod(shard.shape),
            offset=shard.offset + row * shard.row_bytes,
        ).view(shard.shape)

    def __contains__(self, image: object) -> bool:
        return image in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __reduce__(self) -> tuple[type[FeatureCache], tuple[tuple[Shard, ...]]]:
        return (type(self), (self.shards,))


def open_cache(
    folder: Path,
    key: str,
    shape: Shape,
    wanted: Set[str],
    verified: Sequence[Shard] = (),
) -> FeatureCache:
    """The shards of a folder that hold a wanted picture; bad ones are discarded with a warning.

    Args:
        wanted: hashes of pictures; of a shard with none of them only the header is read.
        verified: shards that were read and found good already.
    """
    known = {shard.path for shard in verified}
    paths = [path for path in sorted(folder.glob(f"*{SUFFIX}")) if path not in known]
    judge = partial(_judged, key=key, shape=shape, wanted=wanted)
    with ThreadPoolExecutor(VERIFYING_THREADS) as pool:  # computing checksums releases the GIL
        found = [shard for shard in pool.map(judge, paths) if shard is not None]
    return FeatureCache([*verified, *found])


def _judged(path: Path, key: str, shape: Shape, wanted: Set[str]) -> Shard | None:
    """The shard if it is good and needed; a bad one is removed."""
    try:
        shard = read_shard(path, key, shape)
        if wanted.isdisjoint(shard.images):
            return None
        verify_shard(shard)
        return shard
    except FileNotFoundError:  # another process judged it first
        return None
    except BadShard as error:
        logger.warning("%s is discarded: %s; its features are computed again", path, error)
        with suppress(OSError):  # a folder that may only be read
            path.unlink()
    except OSError as error:
        logger.warning("%s cannot be read (%s) and is left out", path, error.strerror)
    return None
