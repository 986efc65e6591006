"""`siqvl answer` as it is typed: what it prints, the files it writes, and its errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from siqvl.checkpoint import content_hash
from siqvl.cli.main import main
from tests.answers.conftest import asked_rows, checkpoint, lines, write_picture, write_rows

__all__ = ["checkpoint"]


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["answer", *map(str, words)])


def test_a_table(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    rows = [{"asked": row.pop("question"), **row} for row in asked_rows(folder, 5)]
    rows[4]["images"] = ["images/none.png"]
    table = write_rows(folder, rows)
    out = tmp_path / "new" / "answers.parquet"
    words = (checkpoint, table, "-o", out, "--column", "question=asked", "--max-new-tokens", 4)
    done = run(*words)
    assert done.exit_code == 0, done.output
    page = out.with_suffix(".html")
    assert done.stdout == f"4 answers, and 1 row with errors: {out}\n{page}\n"
    assert "1 × no image data" in done.stderr
    assert "tokens/s" in done.stderr
    assert pq.read_table(out)["question"].to_pylist() == [row["asked"] for row in rows]
    assert page.read_text(encoding="utf-8").count("<article") == 5
    again = run(*words, "--page", tmp_path / "page.html")
    assert "5 rows were answered already" in again.stderr
    assert (tmp_path / "page.html").exists()
    other = run(*words[:-1], 5)
    assert other.exit_code == 1
    assert "holds answers of another run (max_new_tokens 4, now 5)" in other.stderr
    assert run(*words[:-1], 5, "--fresh").exit_code == 0


def test_what_is_read_is_not_written_over(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    table = write_rows(folder, asked_rows(folder, 2))
    before = {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}
    link = tmp_path / "link.jsonl"
    link.symlink_to(table)
    out = tmp_path / "answers.csv"
    pictures = (folder / "images", "--question", "what is this?")
    for words, said in (
        ((table, "-o", table), f"{table} is what is read, and would be lost: give another `-o`"),
        ((table, "-o", link), f"{link} is what is read"),
        ((table, "-o", out, "--page", table), "would be lost: give another `--page`"),
        ((table, "-o", out, "--page", out), f"{out} is the table already: give another `--page`"),
        ((*pictures, "-o", folder / "images" / "new" / "a.csv"), "would be read with it the next"),
    ):
        done = run(checkpoint, *words)
        assert done.exit_code == 1
        assert said in done.stderr
    assert {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()} == before
    assert not out.exists()


def test_a_checkpoint_is_not_written_into(checkpoint: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path, asked_rows(tmp_path, 2))
    before = content_hash(checkpoint)
    inside = checkpoint / "answers.csv"
    for words in (("-o", inside), ("-o", tmp_path / "a.csv", "--page", inside)):
        done = run(checkpoint, table, *words)
        assert done.exit_code == 1
        assert f"{inside} lies in the checkpoint" in done.stderr
    assert content_hash(checkpoint) == before


def test_a_folder_of_pictures(checkpoint: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_picture(tmp_path / "photos" / f"{number}.png", number)
    out = tmp_path / "answers.jsonl"
    words = (checkpoint, tmp_path / "photos", "-o", out, "--page-rows", 0, "--max-new-tokens", 3)
    assert run(*words).exit_code == 1
    done = run(*words, "--question", "what is this?", "--limit", 2)
    assert (done.exit_code, done.stdout) == (0, f"2 answers: {out}\n")
    assert [one["id"] for one in lines(out)] == ["0.png", "1.png"]
    assert not out.with_suffix(".html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{checkpoint}", "none.csv", "-o", "{out}.csv"], "does not exist"),
        (["{checkpoint}", "{table}", "-o", "{out}.txt"], "should end in"),
        (["{checkpoint}", "mine.yaml", "-o", "{out}.csv"], "is a recipe"),
        (["{checkpoint}", "", "-o", "{out}.csv"], "there is no data set"),
        (["none", "{table}", "-o", "{out}.csv"], "there is no checkpoint none"),
        (["{checkpoint}", "{table}", "-o", "{out}.csv", "--top-p", "0"], "top_p is 0.0"),
        (["{checkpoint}", "{table}", "-o", "/proc/none/a.csv"], "nothing can be written to"),
        (["{checkpoint}", "{table}", "-o", "{out}.csv", "--adapter", "x"], "unknown source kind"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    checkpoint: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    table = write_rows(tmp_path / "set", [{"question": "why?"}])
    places = {"checkpoint": checkpoint, "table": table, "out": tmp_path / "out"}
    done = run(*(word.format(**places) for word in words))
    assert (done.exit_code, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_that_can_be_answered_is_exit_code_1(checkpoint: Path, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "set", [{"question": "<|im_end|>"}])
    done = run(checkpoint, table, "-o", tmp_path / "out.csv")
    assert done.exit_code == 1
    assert "0 answers, and 1 row with errors" in done.stdout


@pytest.mark.integration
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_goes_on(checkpoint: Path, tmp_path: Path, how: signal.Signals) -> None:
    table = write_rows(tmp_path / "set", asked_rows(tmp_path / "set", 60))
    words = [str(checkpoint), str(table), "--batch-size", "2", "--max-new-tokens", "12"]
    straight = tmp_path / "straight.jsonl"
    assert run(*words, "-o", straight).exit_code == 0
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "siqvl", "answer", *words, "-o", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        parts = tmp_path / ".out.jsonl.parts"
        end = time.monotonic() + 120
        while len([*parts.glob("*.parquet")]) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(done.pid, how)
        _, said = done.communicate()
    if how is signal.SIGINT:
        assert done.returncode == 130
        assert b"the same command goes on" in said
    assert not out.exists()
    again = run(*words, "-o", out)
    assert again.exit_code == 0
    assert "rows were answered already" in again.stderr
    assert out.read_bytes() == straight.read_bytes()
    assert json.loads(out.read_text().splitlines()[0])["answer"] is not None
