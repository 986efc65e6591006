"""Locks between processes: bounded, gone with whoever had them, and missing without harm."""

import errno
import os
import signal
import time
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import pytest

from siqvl import locks
from siqvl.locks import NoLocks, lock, locked, shared, try_lock

fork = get_context("fork")


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file, how) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)


def test_others_are_waited_for_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as first:
        assert first
        assert try_lock(path) is None
        begin = time.monotonic()
        with locked(path, 0.2) as second:
            assert not second
        assert time.monotonic() - begin >= 0.2
    assert not path.exists()
    with locked(path, 0.0) as third:
        assert third


def test_a_file_that_its_owner_has_removed_locks_nothing(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "lock"
    flocked = locks._flocked

    def removed(file, how) -> bool:
        if path.exists() and not removals:
            removals.append(path.unlink())
        return flocked(file, how)

    removals: list[None] = []
    monkeypatch.setattr(locks, "_flocked", removed)
    found = lock(path, seconds=5)
    assert found is not None
    assert path.exists()
    assert try_lock(path) is None


def test_who_ends_after_the_last_leaves_the_file_of_who_came_since(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with ExitStack() as slow:
        is_last = slow.enter_context(shared(path))
        with shared(path):
            assert not is_last()
        assert not path.exists()
        with shared(path) as since:
            slow.close()
            assert path.exists()
            assert since()


def test_a_forked_process_does_not_keep_the_lock_of_a_killed_one(tmp_path: Path) -> None:
    waits, wakes = fork.Pipe(duplex=False)

    def die() -> None:
        assert lock(tmp_path / "lock")
        fork.Process(target=waits.recv).start()
        os.kill(os.getpid(), signal.SIGKILL)

    process = fork.Process(target=die)
    process.start()
    process.join()
    assert try_lock(tmp_path / "lock") is not None
    wakes.send("end")


def test_the_last_one_tidies_up(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with shared(path) as first_is_last:
        with shared(path) as second_is_last:
            assert not second_is_last()
        assert path.exists()
        assert first_is_last()
    assert not path.exists()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_nobody_waits(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(NoLocks):
        lock(tmp_path / "lock", seconds=60)
    assert try_lock(tmp_path / "lock") is None
    with locked(tmp_path / "lock", 60) as alone, shared(tmp_path / "lock") as is_last:
        assert not alone
        assert is_last()
    with locked(tmp_path / "missing" / "lock", 60) as alone:
        assert not alone
    assert time.monotonic() - begin < 30
