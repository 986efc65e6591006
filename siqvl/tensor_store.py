"""Tensors on disk, looked up by name: written atomically, judged before use, mapped into memory.

A store is a folder of shards. A shard is a safetensors file (a header, then raw bytes; nothing is
ever unpickled) with one tensor [rows, *shape] and, as metadata, the name of each row, the key of
what computed them, and a checksum. The file is its own index, so that the rename that makes it
visible makes all of it visible. Kept this way are the features of the frozen vision tower, by
picture, and the log-probabilities under DPO's reference, by pair.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from siqvl.errors import UserError
from siqvl.files import atomic_file

logger = logging.getLogger(__name__)

VERSION = "1"
SUFFIX = ".safetensors"
CHUNK = 8 * 2**20
VERIFYING_THREADS = 4

#: Types as safetensors names them, each with the words that its bytes are read in, and in these the
#: bits of the exponent, which are all set in infinities and NaNs.
DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32}
EXPONENTS = {"BF16": (np.uint16, 0x7F80), "F32": (np.uint32, 0x7F800000)}


class BadShard(Exception):
    """Why a shard cannot be trusted; the rest of the sentence `<file> is discarded: …`."""


@dataclass(frozen=True)
class Layout:
    """What every shard of a store holds."""

    key: str  # digest of all that rows depend on, but for what their names stand for
    origin: str  # what the key is of, for messages: "this tower, this image processor"
    tensor: str  # the tensor's name in the file
    row: str  # what a row is of, for messages: "picture"
    names: str  # where the metadata has the names of the rows, which hold no spaces: "images"
    dtype: str  # one of DTYPES
    shape: tuple[int, ...]  # of a row

    @property
    def row_bytes(self) -> int:
        """What one row takes: 1.68 MB for the features of 729 patches of 1152 in bf16."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def header(self, names: Sequence[str], sha256: str) -> bytes:
        """Length and JSON header as in the safetensors format, padded so that rows start aligned.

        https://github.com/huggingface/safetensors#format
        """
        content = {
            "__metadata__": {
                "version": VERSION,
                "key": self.key,
                "sha256": sha256,  # of the next line and of all rows
                self.names: " ".join(names),
            },
            self.tensor: {
                "dtype": self.dtype,
                "shape": [len(names), *self.shape],
                "data_offsets": [0, len(names) * self.row_bytes],
            },
        }
        text = json.dumps(content).encode()
        text += b" " * (-(8 + len(text)) % 64)
        return len(text).to_bytes(8, "little") + text


@dataclass(frozen=True)
class TensorShard:
    """A file whose header and size are right."""

    path: Path
    offset: int  # of the first row, in bytes
    names: tuple[str, ...]
    sha256: str
    bytes: int


class TensorStore(Mapping[str, torch.Tensor]):
    """Maps names to tensors of the layout's shape and type.

    What it returns is a view of the mapped file, without a copy: do not change it in place. It
    pickles as a list of files, which a loader's worker maps for itself.
    """

    def __init__(self, layout: Layout, shards: Sequence[TensorShard]) -> None:
        self.layout = layout
        self.shards = tuple(shards)
        self._maps: dict[int, memoryview] = {}
        self._places = {
            name: (number, row)
            for number, shard in enumerate(self.shards)
            for row, name in enumerate(shard.names)
        }

    def __getitem__(self, name: str) -> torch.Tensor:
        layout = self.layout
        if name not in self._places:
            raise KeyError(f"no {layout.tensor} of {layout.row} {name} are in this cache")
        number, row = self._places[name]
        shard = self.shards[number]
        if number not in self._maps:
            self._maps[number] = _map(shard)
        # a tensor of its own size: a slice of the whole shard would be sent whole to a process
        return torch.frombuffer(
            self._maps[number],
            dtype=DTYPES[layout.dtype],
            count=math.prod(layout.shape),
            offset=shard.offset + row * layout.row_bytes,
        ).view(layout.shape)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __reduce__(self) -> tuple[type[TensorStore], tuple[Layout, tuple[TensorShard, ...]]]:
        return (type(self), (self.layout, self.shards))


def open_store(
    folder: Path, layout: Layout, wanted: Set[str], verified: Sequence[TensorShard] = ()
) -> TensorStore:
    """Opens the shards of a folder that hold a wanted row; bad ones are discarded with a warning.

    Args:
        wanted: names of rows; of a shard with none of them only the header is read.
        verified: shards that were read and found good already.
    """
    known = {shard.path for shard in verified}
    paths = [path for path in sorted(folder.glob(f"*{SUFFIX}")) if path not in known]
    judge = partial(_judged, layout=layout, wanted=wanted)
    with ThreadPoolExecutor(VERIFYING_THREADS) as pool:  # computing checksums releases the GIL
        found = [shard for shard in pool.map(judge, paths) if shard is not None]
    return TensorStore(layout, [*verified, *found])


def write_shard(
    folder: Path,
    layout: Layout,
    names: Sequence[str],
    batches: Iterable[torch.Tensor],
    owner: str = "",
) -> Path:
    """Writes named rows to a file of the folder that is there whole or not at all.

    Args:
        batches: on the CPU, [n, *shape] each in the layout's type, together a row for each name.
        owner: named in the file while it is partial, so that leftovers of the dead can be told.

    Raises:
        OSError: the disk is full, or does not let us write.
    """
    path = folder / f"{uuid.uuid4().hex}{SUFFIX}"  # several processes write into one folder
    digest = hashlib.sha256(" ".join(names).encode())
    with atomic_file(path, owner) as partial_path, open(partial_path, "wb") as file:
        file.write(layout.header(names, "0" * 64))  # the checksum's place
        for batch in batches:
            rows = batch.contiguous().flatten().view(torch.uint8).numpy().data
            digest.update(rows)
            file.write(rows)
        file.seek(0)
        file.write(layout.header(names, digest.hexdigest()))
    return path


def _judged(path: Path, layout: Layout, wanted: Set[str]) -> TensorShard | None:
    """The shard if it is good and needed; a bad one is removed."""
    try:
        shard = _read(path, layout)
        if wanted.isdisjoint(shard.names):
            return None
        _verify(shard, layout)
        return shard
    except FileNotFoundError:  # another process judged it first
        return None
    except BadShard as error:
        logger.warning("%s is discarded: %s; its %s are computed again", path, error, layout.tensor)
        with suppress(OSError):  # a folder that may only be read
            path.unlink()
    except OSError as error:
        logger.warning("%s cannot be read (%s) and is left out", path, error.strerror)
    return None


def _read(path: Path, layout: Layout) -> TensorShard:
    """Judge a shard by its header and its size.

    Raises:
        BadShard: it is not, byte for byte, what `write_shard` puts there for this layout.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length < size else b""
    try:
        metadata = json.loads(header)["__metadata__"]
        names, sha256 = tuple(metadata[layout.names].split(" ")), metadata["sha256"]
        expected = layout.header(names, sha256)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadShard("its header is damaged") from None
    if header != expected[8:]:
        raise BadShard(f"it is not of {layout.origin} and this version")
    whole = len(expected) + len(names) * layout.row_bytes
    if size != whole:
        raise BadShard(f"it has {size} bytes where {whole} belong")
    return TensorShard(path, len(expected), names, sha256, size)


def _verify(shard: TensorShard, layout: Layout) -> None:
    """Read a shard once from end to end.

    Raises:
        BadShard: its content is not what was written, or not finite.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256(" ".join(shard.names).encode())
    buffer = bytearray(CHUNK)
    word, exponent = EXPONENTS[layout.dtype]
    words = np.frombuffer(buffer, word)
    finite = True
    with open(shard.path, "rb") as file:
        file.seek(shard.offset)
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            read = words[: count // words.itemsize]
            finite = finite and bool((read & exponent).max() < exponent)
    if digest.hexdigest() != shard.sha256:
        raise BadShard("its checksum is wrong")
    if not finite:
        raise BadShard("it holds NaN or infinite values")


def _map(shard: TensorShard) -> memoryview:
    """The bytes of a shard, read from disk as they are touched.

    The mapping is private: what somebody writes into it stays in this process. It keeps no file
    descriptor, of which a process may have only 1,024.

    Raises:
        UserError: the file has gone or changed its size since it was judged.
    """
    # asked first: touching a mapping beyond the end of its file kills the process
    if not shard.path.is_file() or shard.path.stat().st_size != shard.bytes:
        raise UserError(f"{shard.path} changed while it was in use; start again to rebuild it")
    mapped = torch.from_file(str(shard.path), shared=False, size=shard.bytes, dtype=torch.uint8)
    return mapped.numpy().data
