"""Journals on disk, looked at as another process finds them."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from siqvl.tracking.journal import LINKED, Journal, journals

URI = "sqlite:///mlflow.db"


def made(spool: Path, run_id: str = "run") -> Journal:
    return Journal.create(spool, uri=URI, run_id=run_id)


def kinds(journal: Journal) -> list[str]:
    return [entry.kind for entry in journal.pending()]


def test_entries_are_pending_until_delivered(tmp_path: Path) -> None:
    journal = made(tmp_path)
    assert journal.is_delivered
    for step in range(3):
        journal.append("metrics", values=[["loss", float("nan"), 1, step]])
    first, *_ = journal.pending()
    assert first.content["values"][0][3] == 0
    assert len(journal.pending(2)) == 2
    journal.delivered(first)
    assert [entry.content["values"][0][3] for entry in journal.pending()] == [1, 2]
    journal.delivered(journal.pending()[-1])
    assert journal.is_delivered
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_outlives_its_writer_and_is_not_taken_from_a_living_one(
    tmp_path: Path,
) -> None:
    journal = made(tmp_path)
    journal.append("tags", values=[["a", "b"]])
    (path,) = journals(tmp_path)
    assert Journal.left_over(path) is None
    journal.close()
    left = Journal.left_over(path)
    assert left is not None
    assert left.header == {"uri": URI, "run_id": "run"}
    assert kinds(left) == ["tags"]
    assert Journal.left_over(path) is None
    left.close()


def write_and_die(spool: Path) -> None:
    journal = made(spool, "offline-1")
    journal.append("run", experiment="x", tags={}, time=1)
    journal.append("metrics", values=[["loss", 1.0, 1, 1]])
    with journal.path.open("ab") as file:
        file.write(b'{"kind": "metrics", "val')  # the power goes in the midst of a line
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_a_killed_process_began_is_ended_and_half_a_line_is_none(
    tmp_path: Path,
) -> None:
    child = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    (path,) = journals(tmp_path)
    left = Journal.left_over(path)
    assert left is not None
    assert kinds(left) == ["run", "metrics", "end"]
    assert left.pending()[-1].content["status"] == "KILLED"
    left.close()


def test_a_run_of_a_process_that_ended_well_is_ended_once(tmp_path: Path) -> None:
    journal = made(tmp_path)
    journal.append("run", experiment="x", tags={}, time=1)
    journal.append("end", status="FINISHED", time=2)
    journal.close()
    (path,) = journals(tmp_path)
    left = Journal.left_over(path)
    assert left is not None
    assert kinds(left) == ["run", "end"]
    left.close()


def test_files_are_kept_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "small.json").write_text("before")
    with (folder / "weights").open("wb") as file:
        file.truncate(LINKED)
    journal = made(tmp_path / "spool")
    place = journal.files / journal.keep(folder)
    single = journal.files / journal.keep(folder / "deep" / "small.json")
    (folder / "deep" / "small.json").write_text("after")
    assert (place / "deep" / "small.json").read_text() == "before"
    assert (single / "small.json").read_text() == "before"
    assert (place / "weights").stat().st_ino == (folder / "weights").stat().st_ino
    written = journal.files / journal.write("text", "note.txt")
    assert (written / "note.txt").read_text() == "text"

    journal.append("artifact", place=place.name, folder=None)
    journal.delivered(journal.pending()[0])
    assert not place.exists()
    assert single.exists()
    assert (folder / "weights").exists()
    journal.close()


def test_what_is_refused_stays_with_its_reason(tmp_path: Path) -> None:
    journal = made(tmp_path)
    journal.append("params", values=[["lr", "2"]])
    journal.refused(journal.pending()[0], "it was 1")
    assert journal.is_delivered
    journal.close()
    assert journals(tmp_path) == []
    (kept,) = tmp_path.glob("run/*.refused")
    assert json.loads(kept.read_text()) == {
        "kind": "params",
        "values": [["lr", "2"]],
        "reason": "it was 1",
    }


@pytest.mark.parametrize("position", ["", "nonsense"])
def test_a_damaged_position_means_all_of_it_again(tmp_path: Path, position: str) -> None:
    journal = made(tmp_path)
    journal.append("tags", values=[["a", "b"]])
    journal.path.with_suffix(".at").write_text(position)
    assert kinds(journal) == ["tags"]
    journal.close()
