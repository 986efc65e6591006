"""Text files, also gzipped: their encoding by the byte-order mark, and their lines one by one."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from siqvl.errors import UserError

LONGEST = 256 * 2**20  # characters of a line or a field: pictures in base64 are megabytes
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
#: The one of UTF-32 begins like that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def is_named(file: Path, *endings: str) -> bool:
    """Whether a file's name has one of some endings, in any case, and maybe `.gz` behind it."""
    return file.name.lower().removesuffix(".gz").endswith(endings)


def without_ending(name: str) -> str:
    """A name without its ending, and without `.gz` behind that."""
    if name.lower().endswith(".gz"):
        name = name[: -len(".gz")]
    return name.rpartition(".")[0] or name


def opened(file: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends with `.gz`."""
    return gzip.open(file) if file.name.lower().endswith(".gz") else open(file, "rb")  # type: ignore[return-value]


def encoding(head: bytes) -> str:
    """What a text that begins so is encoded in: UTF-8 unless a byte-order mark says otherwise."""
    return next((name for mark, name in MARKS if head.startswith(mark)), "utf-8-sig")


def head_of(file: Path, size: int) -> bytes:
    """The first bytes of a file."""
    with opened(file) as stream:
        return stream.read(size)


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    r"""The lines of a text with their numbers, from 1; they end as in the file: \n, \r\n or \r.

    Bytes that are no UTF-8 pass as lone surrogates, U+DC80 to U+DCFF.

    Raises:
        UserError: a line is too long to be one.
        ValueError: bytes that are no UTF-16 or UTF-32, where the mark says so.
    """
    name = encoding(head_of(file, 4))
    errors = "surrogateescape" if name == "utf-8-sig" else "surrogatepass"
    with opened(file) as raw, io.TextIOWrapper(raw, name, errors, newline="") as stream:
        number = 0
        while line := stream.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                raise _too_long(file, number)
            yield number, line


def numbered_byte_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    r"""The lines of a text as UTF-8 with their numbers, from 1; decoded only where that is needed.

    Raises:
        UserError: a line is too long to be one.
    """
    with opened(file) as stream:
        first = stream.readline(LONGEST + 1)
        odd = encoding(first) != "utf-8-sig"
        if not odd and b"\r" not in first.rstrip(b"\r\n"):
            number, line = 1, first
            while line:
                if len(line) > LONGEST:
                    raise _too_long(file, number)
                yield number, line
                number, line = number + 1, stream.readline(LONGEST + 1)
            return
    errors = "surrogatepass" if odd else "surrogateescape"
    for number, text in numbered_lines(file):
        yield number, text.encode("utf-8", errors)


def _too_long(file: Path, number: int) -> UserError:
    return UserError(
        f"{file}, line {number} is longer than {LONGEST // 2**20} MiB; are its line breaks "
        "missing? Store pictures that large as files of their own"
    )
