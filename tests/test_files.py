"""Hashes of files and folders, compared with what their definitions say."""

import hashlib
import os
from contextlib import closing
from pathlib import Path

import pytest

from siqvl.files import DigestedFile, folder_hash

FILES = {"a.txt": b"first", "b/a.txt": b"second", "b/c.txt": b""}


def fill(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def by_hand(files: dict[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return whole.hexdigest()


def test_it_is_over_names_and_bytes_in_order(tmp_path: Path) -> None:
    assert folder_hash(fill(tmp_path)) == by_hand(FILES)


def test_neither_place_nor_time_nor_an_empty_folder_counts(tmp_path: Path) -> None:
    one = fill(tmp_path / "one")
    other = fill(tmp_path / "deep" / "down", dict(reversed(FILES.items())))
    (other / "empty").mkdir()
    os.utime(other / "a.txt", (0, 0))
    assert folder_hash(one) == folder_hash(other)
    linked = tmp_path / "linked"
    linked.symlink_to(one)
    assert folder_hash(linked) == folder_hash(one)


def test_every_change_counts(tmp_path: Path) -> None:
    changes = [
        FILES | {"a.txt": b"First"},  # a byte
        FILES | {"d.txt": b""},  # a file
        {name: content for name, content in FILES.items() if name != "b/c.txt"},
        {"a2.txt" if name == "a.txt" else name: content for name, content in FILES.items()},
        FILES | {"a.txt": FILES["b/a.txt"], "b/a.txt": FILES["a.txt"]},  # swapped
        {"a.txtfirst": b"", "b/a.txt": b"second", "b/c.txt": b""},  # name and content run together
    ]
    found = [folder_hash(fill(tmp_path / str(n), files)) for n, files in enumerate(changes)]
    assert len({folder_hash(fill(tmp_path / "as it was")), *found}) == 1 + len(changes)


def test_what_is_asked_for_counts_and_compiled_python_never(tmp_path: Path) -> None:
    wanted = {name: content for name, content in FILES.items() if name.endswith("a.txt")}
    fill(tmp_path, FILES | {"b/__pycache__/a.pyc": b"x"})
    assert folder_hash(tmp_path, lambda path: path.name == "a.txt") == by_hand(wanted)
    assert folder_hash(tmp_path) == by_hand(FILES)


def test_a_digested_file_holds_what_was_written(tmp_path: Path) -> None:
    parts = [b"", b"first", os.urandom(3 * 2**20), bytes(12 * 2**20), b"last"]
    used_again = bytearray(2**20)
    file = DigestedFile(tmp_path / "file", hashlib.sha256())
    for part in parts:
        assert file.write(part) == len(part)
        used_again[: len(part)] = part[: 2**20]
        file.write(memoryview(used_again)[:10])
    written = b"".join(part + (part[:10] + bytes(10))[:10] for part in [b"", b"first"])
    assert file.tell() == sum(map(len, parts)) + 10 * len(parts)
    file.close()
    file.close()  # as a writer and a `with` both do
    content = (tmp_path / "file").read_bytes()
    assert len(content) == file.tell()
    assert content.startswith(written)
    assert content.endswith(b"last" + b"last" + bytes(6))
    assert file.digest == hashlib.sha256(content).hexdigest()


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("/dev/full")
    file = DigestedFile(tmp_path / "file", hashlib.sha256())
    file.write(b"small")  # waits to be written
    with pytest.raises(OSError, match="No space left"):
        file.close()
    assert file.closed
    file = DigestedFile(tmp_path / "file", hashlib.sha256())
    with pytest.raises(OSError, match="No space left"):  # soon, not only at the end
        list(map(file.write, [bytes(2**20)] * 100))
    file.close()


@pytest.mark.parametrize("size", [10, 100])  # MiB: the first flush alone, or others after it
def test_a_disk_that_fails_in_the_background_is_told(tmp_path: Path, monkeypatch, size) -> None:
    def fails(descriptor: int) -> None:
        raise OSError("the disk is broken")

    monkeypatch.setattr(os, "fdatasync", fails)
    file = DigestedFile(tmp_path / "file", hashlib.sha256())
    with pytest.raises(OSError, match="the disk is broken"), closing(file):
        list(map(file.write, [bytes(2**20)] * size))
    assert file.closed
