"""Log-probabilities of pairs on disk, looked up by the content of a pair.

A shard is a safetensors file (nothing is ever unpickled) with the tensors `pairs` [rows, 32] uint8,
what each pair hashes to, and `log_probs` [rows, 2] float32, of its chosen and its rejected
completion; as metadata the key of what computed them, and a checksum. It is there whole or not at
all, so what a killed run has written stays good.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

VERSION = "1"
SUFFIX = ".safetensors"
PARTIAL = ".partial"

Known = dict[bytes, tuple[float, float]]  # hash of a pair -> its log-probabilities, in nats


def write_shard(folder: Path, key: str, pairs: list[bytes], log_probs: np.ndarray) -> Path:
    """Write some pairs' log-probabilities, float32 [pairs, 2].

    Raises:
        UserError: the folder may not be written to, or its disk is full.
    """
    import numpy as np
    from safetensors.numpy import save

    names = np.frombuffer(b"".join(pairs), np.uint8).reshape(len(pairs), -1)
    about = {"version": VERSION, "key": key, "sha256": _checksum(key, names, log_probs)}
    content = save({"pairs": names, "log_probs": log_probs}, metadata=about)
    name = uuid.uuid4().hex  # several processes write into one folder
    partial, path = folder / f".{name}{PARTIAL}", folder / f"{name}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written to ({error.strerror}); free some space and start again, "
            "or choose another `features_dir`"
        ) from error
    return path


def read_shards(folder: Path, key: str) -> Known:
    """All pairs whose log-probabilities are kept; bad shards are discarded with a warning."""
    known: Known = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            known |= _read(path, key)
        except FileNotFoundError:  # another process discarded it first
            continue
        except OSError as error:
            logger.warning("%s cannot be read (%s) and is left out", path, error.strerror)
        except ValueError as error:
            logger.warning("%s is discarded: %s; its pairs are computed again", path, error)
            with suppress(OSError):  # a folder that may only be read
                path.unlink()
    return known


def _read(path: Path, key: str) -> Known:
    """Raises ValueError, the rest of the sentence `<file> is discarded: …`."""
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            about = file.metadata() or {}
            pairs, log_probs = file.get_tensor("pairs"), file.get_tensor("log_probs")
    except SafetensorError:
        raise ValueError("it is damaged") from None
    if about.get("version") != VERSION or about.get("key") != key:
        raise ValueError("it is not of this model and this version")
    if about.get("sha256") != _checksum(key, pairs, log_probs):
        raise ValueError("its checksum is wrong")
    if not np.isfinite(log_probs).all():
        raise ValueError("it holds NaN or infinite values")
    return {
        pair.tobytes(): (float(chosen), float(rejected))
        for pair, (chosen, rejected) in zip(pairs, log_probs, strict=True)
    }


def _checksum(key: str, pairs: np.ndarray, log_probs: np.ndarray) -> str:
    digest = hashlib.sha256(key.encode())
    digest.update(pairs.tobytes())
    digest.update(log_probs.tobytes())
    return digest.hexdigest()
