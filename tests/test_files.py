"""Folders that appear whole or not at all; hashes, compared with what their definitions say."""

import hashlib
import os
import signal
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from siqvl import files
from siqvl.files import (
    DigestedFile,
    atomic_folder,
    file_digests,
    folder_hash,
    known_sha256,
)

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


def test_a_digest_is_remembered_once_a_later_change_would_show(tmp_path: Path, monkeypatch) -> None:
    """Two changes within a tick of the disk's clock have one time: such a file is read again."""
    (path := tmp_path / "file").write_bytes(b"content")
    read: list[Path] = []
    monkeypatch.setattr(files, "file_sha256", lambda path: read.append(path) or "digest")
    changed = max(path.stat().st_mtime_ns, path.stat().st_ctime_ns)
    for milliseconds, times in ((-5, 1), (0, 2), (10, 3), (100, 4), (200, 4), (300, 4)):
        now = changed + milliseconds * 1_000_000
        monkeypatch.setattr(files.time, "time_ns", lambda now=now: now)
        assert known_sha256(path) == "digest"
        assert len(read) == times
    path.chmod(0o600)  # a change of anything but the content costs one more reading
    later = path.stat().st_ctime_ns + 10**9
    monkeypatch.setattr(files.time, "time_ns", lambda: later)
    assert [known_sha256(path) for _ in range(2)] == ["digest"] * 2
    assert len(read) == 5


def test_digests_of_many_files_keep_the_order_of_names(tmp_path: Path) -> None:
    names = [f"{number % 7}/{number}.{'ab'[number % 2]}" for number in range(60)]
    fill(tmp_path, {name: os.urandom(100 * len(name)) for name in names})
    found = file_digests(tmp_path)
    assert list(found) == [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.glob("*/*"))]
    for name in names:
        assert found[name] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def write_old(out: Path) -> None:
    with atomic_folder(out) as folder:
        fill(folder)


def write_new(out: Path) -> None:
    with atomic_folder(out) as folder:
        (folder / "new.txt").write_bytes(b"new")


def fail(out: Path) -> None:
    with atomic_folder(out):
        raise ZeroDivisionError


def content(out: Path) -> dict[str, bytes]:
    paths = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


NEW = {"new.txt": b"new"}


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path: Path, monkeypatch, exchanged: bool) -> None:
    if not exchanged:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    out = tmp_path / "out"
    for write, expected in ((write_old, FILES), (write_new, NEW), (write_old, FILES)):
        write(out)
        assert content(out) == expected
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_something_is_under_the_name_at_every_moment(tmp_path: Path) -> None:
    out, missed, done = tmp_path / "out", [], threading.Event()
    write_old(out)

    def look() -> None:
        while not done.is_set():
            missed.extend([1] * (not out.exists()))

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(50):
        write_new(out)
    done.set()
    watcher.join()
    assert not missed


def test_a_rename_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    write_old(out)
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if ".tmp-" in self.name and target == out:
            raise OSError("the disk went away")
        return rename(self, target)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="the disk went away"):
        write_new(out)
    assert content(out) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("renames", [1, 2, 3])  # done when the process is killed
def test_what_a_killed_process_put_aside_is_found_by_the_next(
    tmp_path: Path, monkeypatch, renames: int
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    out = tmp_path / "out"
    write_old(out)
    child = os.fork()
    if child == 0:
        rename, done = Path.rename, []

        def killed(self: Path, target: Path) -> None:
            rename(self, target)
            done.append(target)
            if len(done) == renames:
                os.kill(os.getpid(), signal.SIGKILL)

        Path.rename = killed  # type: ignore[method-assign,assignment]  # of this child alone
        write_new(out)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert out.exists() == (renames > 1)
    with pytest.raises(ZeroDivisionError):
        fail(out)
    assert content(out) == (FILES if renames == 1 else NEW)
    write_new(out)
    assert content(out) == NEW
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("exchanged", [True, False])
def test_several_processes_write_one_folder_at_once(
    tmp_path: Path, monkeypatch, exchanged: bool
) -> None:
    if not exchanged:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    out, start = tmp_path / "out", tmp_path / "start"
    children = []
    for _ in range(3):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                while not start.exists():
                    pass
                for _ in range(20):
                    write_old(out)
                os._exit(0)
            finally:
                os._exit(1)
    start.touch()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 3
    assert content(out) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "start"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)])
def test_an_artifacts_files_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    """As safetensors 0.8 writes them, and as others do."""
    fill(tmp_path / "linked", {"file": b"of another artifact"})
    (tmp_path / "linked" / "file").chmod(0o604)
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "out") as folder:
            (folder / "deep").mkdir()
            save_file({"weight": np.zeros(3)}, folder / "deep" / "model.safetensors")
            fill(folder, FILES)
            (folder / "linked").hardlink_to(tmp_path / "linked" / "file")
            (folder / "away").symlink_to(tmp_path / "linked" / "file")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*")}
    assert modes.pop("linked") == modes.pop("away") == 0o604
    folders = 0o777 & ~umask
    assert modes.pop("deep") == modes.pop("b") == folders
    assert set(modes.values()) == {mode}
    assert (tmp_path / "out").stat().st_mode & 0o777 == folders
