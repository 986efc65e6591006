"""One file of tower features: written atomically, judged before it is used, mapped into memory.

A shard is a safetensors file (header, then raw bytes; nothing is ever unpickled) with one tensor
`features` [rows, patches, hidden] in bf16 and, as metadata, the hash of the picture each row
belongs to, the key of what computed it, and a checksum. The file is its own index, so that the
rename that makes it visible makes all of it visible.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.errors import UserError

if TYPE_CHECKING:
    import torch

VERSION = "1"
SUFFIX = ".safetensors"
PARTIAL = ".partial"
ITEM_BYTES = 2  # bf16
EXPONENT = 0x7F80  # the bits that are all set in infinities and NaNs of bf16
CHUNK = 8 * 2**20

Shape = tuple[int, int]  # patches, hidden


class BadShard(Exception):
    """Why a shard cannot be trusted; the rest of the sentence `<file> is discarded: …`."""


@dataclass(frozen=True)
class Shard:
    """A file whose header and size are right."""

    path: Path
    shape: Shape
    offset: int  # of the first row, in bytes
    images: tuple[str, ...]  # hash of each row's picture
    sha256: str

    @property
    def row_bytes(self) -> int:
        return row_bytes(self.shape)

    @property
    def bytes(self) -> int:
        return self.offset + len(self.images) * self.row_bytes


def row_bytes(shape: Shape) -> int:
    """What one picture takes: 1.68 MB for 729 patches of 1152."""
    return shape[0] * shape[1] * ITEM_BYTES


def write_shard(
    folder: Path,
    owner: str,
    key: str,
    shape: Shape,
    images: list[str],
    batches: Iterable[torch.Tensor],
) -> Path:
    """Write the rows of `images`; the file is there whole or not at all.

    Args:
        owner: named in the file while it is partial, so that leftovers of the dead can be told.
        batches: bf16 [n, patches, hidden] each, as many rows together as there are images.

    Raises:
        OSError: the disk is full, or does not let us write.
    """
    import torch

    name = uuid.uuid4().hex  # several processes write into one folder
    partial, path = folder / f".{owner}.{name}{PARTIAL}", folder / f"{name}{SUFFIX}"
    digest = hashlib.sha256(" ".join(images).encode())
    try:
        with open(partial, "wb") as file:
            file.write(_header(key, shape, images, "0" * 64))  # the checksum's place
            for batch in batches:
                rows = batch.contiguous().view(torch.int16).numpy().data.cast("B")
                digest.update(rows)
                file.write(rows)
            file.seek(0)
            file.write(_header(key, shape, images, digest.hexdigest()))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_shard(path: Path, key: str, shape: Shape) -> Shard:
    """Judge a shard by its header and its size.

    Raises:
        BadShard: it is not, byte for byte, what `write_shard` puts there for this key and shape.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length < size else b""
    try:
        metadata = json.loads(header)["__metadata__"]
        images, sha256 = tuple(metadata["images"].split(" ")), metadata["sha256"]
        expected = _header(key, shape, images, sha256)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadShard("its header is damaged") from None
    if header != expected[8:]:
        raise BadShard("it is not of this tower, this image processor and this version")
    shard = Shard(path, shape, len(expected), images, sha256)
    if size != shard.bytes:
        raise BadShard(f"it has {size} bytes where {shard.bytes} belong")
    return shard


def verify_shard(shard: Shard) -> None:
    """Read a shard once from end to end.

    Raises:
        BadShard: its content is not what was written, or not finite.
        OSError: it cannot be read.
    """
    import numpy as np

    digest = hashlib.sha256(" ".join(shard.images).encode())
    buffer = bytearray(CHUNK)
    words = np.frombuffer(buffer, np.uint16)
    finite = True
    with open(shard.path, "rb") as file:
        file.seek(shard.offset)
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            finite = finite and bool((words[: count // 2] & EXPONENT).max() < EXPONENT)
    if digest.hexdigest() != shard.sha256:
        raise BadShard("its checksum is wrong")
    if not finite:
        raise BadShard("it holds NaN or infinite values")


def map_shard(shard: Shard) -> memoryview:
    """The bytes of a shard, read from disk as they are touched.

    The mapping is private: what somebody writes into it stays in this process. It keeps no file
    descriptor, of which a process may have only 1,024.

    Raises:
        UserError: the file has gone or changed its size since it was judged.
    """
    import torch

    # asked first: touching a mapping beyond the end of its file kills the process
    if not shard.path.is_file() or shard.path.stat().st_size != shard.bytes:
        raise UserError(f"{shard.path} changed while it was in use; start again to rebuild it")
    mapped = torch.from_file(str(shard.path), shared=False, size=shard.bytes, dtype=torch.uint8)
    return mapped.numpy().data


def _header(key: str, shape: Shape, images: Iterable[str], sha256: str) -> bytes:
    """Length and JSON header as in the safetensors format, padded so that rows start aligned.

    https://github.com/huggingface/safetensors#format
    """
    images = tuple(images)
    header = {
        "__metadata__": {
            "version": VERSION,
            "key": key,
            "sha256": sha256,  # of the next line and of all rows
            "images": " ".join(images),
        },
        "features": {
            "dtype": "BF16",
            "shape": [len(images), *shape],
            "data_offsets": [0, len(images) * row_bytes(shape)],
        },
    }
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text
