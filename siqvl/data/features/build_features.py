"""Features of the frozen vision tower: computed once a picture, for all stages and runs.

Runs with the same tower, image processor and precision share one folder, `<features_dir>/<key>/`.
Features are stored in bf16. Training under bf16 autocast learns from them exactly what it would
learn from pixels, because autocast rounds the tower's output to bf16 for the projector's Linear
anyway; in fp32 and fp16 the rounding (relative error at most 2^-9) is new.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset
from tqdm import tqdm

from siqvl.data.encoded import MISSING_HASHES
from siqvl.data.features.shares import SEEN_WITHIN, complete
from siqvl.data.features.tower import PixelBatches, Place, Precision, Tower
from siqvl.errors import UserError
from siqvl.files import PARTIAL, expanded
from siqvl.locks import NoLocks, lock, locked
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import Recipe
from siqvl.tensor_store import TensorStore, open_store, write_shard

logger = logging.getLogger(__name__)

SHARD_BYTES = 512 * 2**20
LONGEST_SHARD = 600.0  # seconds in which another run is taken to write one
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def features_folder(recipe: Recipe, machines: int = 1) -> Path:
    """Where what a frozen model makes of rows is kept for later runs.

    Args:
        machines: that compute it together. Several have it in `distributed.shared_dir`, unless the
            recipe names a folder: each computes its part, and the next stage and the next attempt,
            whose pods have other disks, find it there.
    """
    if recipe.features_dir:
        return expanded(recipe.features_dir)
    if machines > 1 and recipe.distributed.shared_dir:
        return expanded(recipe.distributed.shared_dir) / "features"
    return expanded(recipe.output_dir) / "features"


def cached_features(
    folder: Path,
    dataset: Dataset,
    *,
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    precision: Precision,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    shares: Sequence[int] | None = None,
    barrier: Callable[[], object] | None = None,
    shard_bytes: int = SHARD_BYTES,
    exact: bool = False,
) -> TensorStore:
    """Looks up the features of all pictures of `dataset`, and computes what the folder lacks.

    The tower runs where it is: move it to the GPU before. Each shard appears when it is complete,
    so a run that is killed keeps the others, and several processes may fill a folder at once.

    Args:
        folder: the recipe's `features_dir`.
        dataset: prepared rows, with `images` and `image_hashes`.
        precision: the stage's: the tower runs under its autocast, and it is part of the key.
        batch_size: pictures in one pass of the tower.
        workers: loader processes that decode and resize pictures.
        rank: of this one of `world` processes, and of the share that it computes without `shares`.
        barrier: waits for all processes; required when there are several.
        exact: keep features as the tower gives them, for answers, not rounded to bf16; passes are
            filled up, so that a picture's do not depend on its company.

    Returns:
        Hash of a picture (`image_hashes` of a row) -> its features [patches, hidden], bf16 unless
        they are exact.

    Raises:
        UserError: the tower is trainable or gives values that are not finite, or the disk is too
            small or may not be written to.
    """
    if world > 1 and barrier is None:
        raise ValueError("several processes fill one cache: pass the barrier that they wait at")
    tower = Tower.frozen(model, processor, precision, pass_size=batch_size if exact else None)
    place = Path(folder) / tower.layout.key
    pictures = _pictures(dataset)
    cache = open_store(place, tower.layout, pictures.keys())
    for number in [rank] if shares is None else shares:
        if cache.keys() >= set(share := sorted(pictures)[number::world]):
            continue
        _check_disk(place, len(pictures.keys() - cache.keys()), tower.layout.row_bytes)
        with _building(place, f"{number}-of-{world}") as owner:
            # another run may have computed them while this one waited for its turn
            cache = open_store(place, tower.layout, pictures.keys(), cache.shards)
            images = [image for image in share if image not in cache]
            pixels = PixelBatches(dataset, [pictures[i] for i in images], processor, batch_size)
            batches = pixels.loader(workers)
            _build(place, owner, tower, images, batches, batch_size, shard_bytes, show=rank == 0)
    if barrier is not None:
        barrier()
    return _all_of(place, tower, pictures, cache, seconds=SEEN_WITHIN if world > 1 else 0.0)


def _all_of(
    place: Path,
    tower: Tower,
    pictures: dict[str, Place],
    cache: TensorStore,
    *,
    seconds: float,
) -> TensorStore:
    """Opens the store once more, now that all has been written.

    Args:
        seconds: in which it comes to be seen.

    Raises:
        UserError: something is not there.
    """
    cache = complete(
        cache,
        lambda known: open_store(place, tower.layout, pictures.keys(), known.shards),
        pictures.keys(),
        seconds=seconds,
    )
    if lost := len(pictures.keys() - cache.keys()):
        raise UserError(
            f"{place} lacks {lost} of {len(pictures)} pictures whose features were just written; "
            "check the disk"
        )
    return cache


def _pictures(dataset: Dataset) -> dict[str, Place]:
    """Hash of each distinct picture -> a row that has it, and its number among the row's images."""
    if "image_hashes" not in dataset.column_names:
        raise UserError(MISSING_HASHES)
    pictures: dict[str, Place] = {}
    row = 0
    for batch in dataset.select_columns(["image_hashes"]).iter(batch_size=10_000):
        for hashes in batch["image_hashes"]:
            for number, image in enumerate(hashes):
                pictures.setdefault(image, (row, number))
            row += 1
    return pictures


def _build(
    place: Path,
    owner: str,
    tower: Tower,
    images: list[str],
    pixels: Iterable[torch.Tensor],
    batch_size: int,
    shard_bytes: int,
    *,
    show: bool,
) -> None:
    """Write the features of `images`, whose pixels come in batches, shard after shard."""
    bar = tqdm(
        total=len(images),
        desc="tower features",
        unit=" pictures",
        mininterval=1.0,
        disable=not show,
    )

    def features() -> Iterator[torch.Tensor]:
        for number, batch in enumerate(pixels):
            start = number * batch_size
            yield tower.features(batch, images[start : start + batch_size])
            bar.update(len(batch))

    # Whole batches in every shard: a rerun then computes the very same batches, bit for bit.
    shard_batches = max(shard_bytes // (tower.layout.row_bytes * batch_size), 1)
    batches = features()
    with bar:
        for start in range(0, len(images), shard_batches * batch_size):
            names = images[start : start + shard_batches * batch_size]
            rows = islice(batches, -(-len(names) // batch_size))
            try:
                write_shard(place, tower.layout, names, rows, owner)
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                raise UserError(
                    f"{place} is on a full disk: {start} of {len(images)} missing pictures are "
                    "kept; free some space and start again, or move `features_dir`"
                ) from error


def _check_disk(place: Path, pictures: int, row: int) -> None:
    """Refuse before any work what will not fit."""
    disk = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    needed, free = pictures * row, shutil.disk_usage(disk).free
    if needed > free:
        raise UserError(
            f"cached features of {pictures} pictures take {needed / 1e9:.1f} GB, but {disk} has "
            f"{free / 1e9:.1f} GB free; move `features_dir`, or set cached_features: false"
        )


@contextmanager
def _building(place: Path, share: str) -> Iterator[str]:
    """Lets one process at a time build a share, and clears away what killed ones left half done.

    It waits while other shards come. Two that build one share do the same, and do no harm.

    Yields the name under which partial files are written.
    """
    path, held, seen = place / f".{share}.lock", None, 0
    try:
        place.mkdir(parents=True, exist_ok=True)
        with suppress(NoLocks):
            held = lock(path)
            if held is None:
                logger.warning("%s: another run computes these features; waiting for it", place)
            while held is None and (now := place.stat().st_mtime_ns) != seen:
                held, seen = lock(path, seconds=LONGEST_SHARD), now
    except OSError as error:
        raise UserError(
            f"{place} may not be written to ({error.strerror}); choose another `features_dir`"
        ) from None
    try:
        for partial in place.glob(f".*{PARTIAL}"):
            other = partial.name.split(".")[1]
            if other == share and held is not None:
                partial.unlink(missing_ok=True)
            elif other != share:
                with locked(place / f".{other}.lock", 0.0) as is_dead:
                    if is_dead:
                        partial.unlink(missing_ok=True)
        yield share
    finally:
        if held is not None:
            path.unlink(missing_ok=True)
            held.close()
