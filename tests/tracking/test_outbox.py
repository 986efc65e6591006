"""Outboxes on disk, looked at as another process finds them."""

import logging
import multiprocessing
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from siqvl.tracking import outbox as outbox_module
from siqvl.tracking import volume
from siqvl.tracking.outbox import FILES, LINKED, NAME, Outbox, outboxes

URI = "sqlite:///mlflow.db"


def point(step: int) -> tuple[str, list]:
    return "metric", ["loss", float(step), 1, step]


def kinds(outbox: Outbox, writer: str) -> list[str]:
    return [entry.kind for one in outbox.streams(writer) for entry in outbox.waiting(one)]


def steps(outbox: Outbox) -> list[int]:
    (stream,) = outbox.streams()
    return [entry.content[3] for entry in outbox.waiting(stream)]


def test_entries_wait_until_they_are_delivered(tmp_path: Path) -> None:
    outbox = Outbox.of_process(tmp_path)
    assert outbox.streams() == []
    outbox.add(URI, "run", [point(0), ("metric", ["loss", float("nan"), 1, 1]), point(2)])
    (stream,) = outbox.streams()
    assert (stream.uri, stream.run) == (URI, "run")
    first, *_ = outbox.waiting(stream)
    assert len(outbox.waiting(stream, most=2)) == 2
    outbox.delivered([first])
    assert steps(outbox) == [1, 2]
    outbox.delivered(outbox.waiting(stream))
    assert outbox.streams() == []
    outbox.close()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_what_is_left_outlives_its_writer_and_is_not_taken_from_a_living_one(
    tmp_path: Path,
) -> None:
    outbox = Outbox.of_process(tmp_path)
    outbox.add(URI, "run", [("tag", ["a", "b"])])
    other = Outbox.of_process(tmp_path)
    assert other.others() == [outbox.writer]
    assert other.take_over(outbox.writer) is None
    outbox.close()
    lock = other.take_over(outbox.writer)
    assert lock is not None
    assert Outbox(tmp_path / NAME).take_over(outbox.writer) is None
    assert kinds(other, outbox.writer) == ["tag"]
    other.release(outbox.writer, lock)
    other.close()


def write_and_die(folder: Path) -> None:
    outbox = Outbox.of_process(folder)
    outbox.add(URI, "offline-1", [("run", {"experiment": "x", "tags": {}, "time": 1})])
    outbox.add(URI, "offline-1", [point(1)])
    outbox.add(URI, "offline-2", [("run", {}), ("end", {"status": "FINISHED", "time": 2})])
    outbox._database.execute("BEGIN")
    outbox._database.execute("INSERT INTO online VALUES ('cut', 'off')")  # and no COMMIT
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_a_killed_process_began_is_ended_once(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    outbox = Outbox(tmp_path / NAME)
    (writer,) = outbox.others()
    for _ in range(2):
        lock = outbox.take_over(writer)
        assert lock is not None
        outbox.release(writer, lock)
    assert kinds(outbox, writer) == ["run", "metric", "end", "run", "end"]
    (killed, whole) = outbox.streams(writer)
    assert outbox.waiting(killed)[-1].content["status"] == "KILLED"
    assert outbox.waiting(whole)[-1].content["status"] == "FINISHED"
    assert outbox.online("cut") is None


def test_files_are_kept_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "small.json").write_text("before")
    with (folder / "weights").open("wb") as file:
        file.truncate(LINKED)
    outbox = Outbox.of_process(tmp_path / "spool")
    files = tmp_path / "spool" / FILES
    place, single = (files / outbox.keep(path) for path in (folder, folder / "deep" / "small.json"))
    (folder / "deep" / "small.json").write_text("after")
    assert (place / "deep" / "small.json").read_text() == "before"
    assert (single / "small.json").read_text() == "before"
    assert (place / "weights").stat().st_ino == (folder / "weights").stat().st_ino

    outbox.add(URI, "run", [("artifact", {"place": place.name, "folder": None})])
    outbox.delivered(outbox.waiting(outbox.streams()[0]))
    assert not place.exists()
    assert single.exists()
    assert (folder / "weights").exists()


def test_what_is_refused_stays_with_its_reason(tmp_path: Path) -> None:
    outbox = Outbox.of_process(tmp_path)
    outbox.add(URI, "run", [("param", ["lr", "2"]), point(1)])
    (stream,) = outbox.streams()
    outbox.refused(outbox.waiting(stream)[:1], "it was 1")
    assert steps(outbox) == [1]
    assert outbox.refusals() == [("run", "param", ["lr", "2"], "it was 1")]


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def scrambled(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))


@pytest.mark.parametrize("damage", [garbage, cut, scrambled])
def test_a_damaged_file_is_one_sentence_and_set_aside(tmp_path: Path, damage, caplog) -> None:
    outbox = Outbox.of_process(tmp_path)
    outbox.add(URI, "run", [point(0)])
    outbox.tidy()
    outbox.close()
    damage(tmp_path / NAME)
    damaged = (tmp_path / NAME).read_bytes()
    with caplog.at_level(logging.WARNING):
        outbox = Outbox.of_process(tmp_path)
    outbox.add(URI, "run", [point(1)])
    assert steps(outbox) == [1]
    (said,) = caplog.messages
    assert "is damaged" in said
    (aside,) = [path for path in tmp_path.glob("damaged-*") if path.suffix == ".db"]
    assert aside.read_bytes() == damaged
    assert outboxes(tmp_path) == [tmp_path / NAME]


def test_a_file_that_is_damaged_while_it_is_used_holds_nothing_up(tmp_path: Path, caplog) -> None:
    outbox = Outbox.of_process(tmp_path)
    outbox.add(URI, "run", [point(0)])
    for end in ("", "-wal"):
        path = tmp_path / f"{NAME}{end}"
        with path.open("r+b") as file:
            file.write(os.urandom(path.stat().st_size))
    for step in range(1, 50):
        outbox.add(URI, "run", [point(step)])
    assert set(range(10, 50)) <= set(steps(outbox))  # those before may be among the damaged


def test_a_copy_is_whole_while_others_write(tmp_path: Path) -> None:
    outbox = Outbox.of_process(tmp_path / "spool")
    outbox.add(URI, "run", [point(step) for step in range(100)])
    outbox.copy_to(tmp_path / "copy")
    outbox.add(URI, "run", [point(100)])
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [NAME]
    assert steps(Outbox(tmp_path / "copy" / NAME)) == list(range(100))


def mode(path: Path) -> str:
    return sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone()[0]


MOUNTS = """\
proc /proc proc rw 0 0
/dev/vda / ext4 rw 0 0
server:/share /mnt/nfs nfs4 rw 0 0
bucket /mnt/nfs/my\\040bucket fuse.gcsfuse rw 0 0
/dev/vdb /mnt/nfs/disk xfs rw 0 0
share /mnt/virtual virtiofs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "local"),
    [
        ("/home/me", True),
        ("/mnt", True),
        ("/mnt/nfs/a/b", False),
        ("/mnt/nfs2", True),
        ("/mnt/nfs/my bucket/a", False),
        ("/mnt/nfs/disk/a", True),
        ("/mnt/virtual", False),
    ],
)
def test_local_disks_are_told_from_others(tmp_path: Path, folder: str, local: bool) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert volume.is_local(Path(folder), mounts) is local
    assert not volume.is_local(Path(folder), tmp_path / "none")


def test_the_log_is_written_ahead_on_a_local_disk_alone(tmp_path: Path, monkeypatch) -> None:
    Outbox.of_process(tmp_path / "local")
    assert mode(tmp_path / "local" / NAME) == "wal"
    monkeypatch.setattr(outbox_module, "is_local", lambda folder: False)
    Outbox.of_process(tmp_path / "remote").add(URI, "run", [point(0)])
    assert mode(tmp_path / "remote" / NAME) == "delete"  # the connection's own; the file has none
    assert not list((tmp_path / "remote").glob("*-wal"))


def test_a_volume_without_locks_does_no_harm(tmp_path: Path, monkeypatch) -> None:
    """Every process has a file of its own there, and nobody takes it for left over."""
    monkeypatch.setattr(outbox_module, "try_lock", lambda path: None)
    both = [Outbox.of_process(tmp_path) for _ in range(2)]
    for step, outbox in enumerate(both):
        outbox.add(URI, "run", [point(step)])
        assert steps(outbox) == [step]
        assert outbox.others() == []
    assert outboxes(tmp_path) == sorted(outbox.path for outbox in both)
    left = Outbox(both[0].path)
    assert left.take_over(both[0].writer) is None


def add_forked(folder: Path, writes: list[Outbox]) -> None:
    made = Outbox.of_process(folder)
    made.add(URI, "run", [point(7)])
    made.close()


def test_a_forked_process_has_a_file_of_its_own(tmp_path: Path) -> None:
    outbox = Outbox.of_process(tmp_path)
    outbox.add(URI, "run", [point(0)])
    child = multiprocessing.get_context("fork").Process(
        target=add_forked, args=(tmp_path, [outbox])
    )
    child.start()
    child.join()
    assert child.exitcode == 0
    assert steps(outbox) == [0]
    (other,) = [path for path in outboxes(tmp_path) if path != outbox.path]
    assert steps(Outbox(other)) == [7]
