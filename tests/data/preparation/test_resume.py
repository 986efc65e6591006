"""Killed, torn, split over shards: prepared data comes out byte for byte the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from siqvl.data.preparation import merge, workers
from siqvl.data.preparation.checks import check_row
from siqvl.data.preparation.pieces import BLOCK
from siqvl.data.preparation.prepare import load_prepared, merge_pieces, prepare, prepare_pieces
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source

ROWS = 4 * BLOCK + 100
SOURCES = [Source(kind="shapes", max_samples=ROWS)]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a prepared folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    prepare(SOURCES, RowKind.SFT, out, data=DataPrep(rows_per_shard=500), seed=0)
    found = content(out)
    assert {"manifest.json", "quarantine.jsonl", "report.html", "images.parquet"} < found.keys()
    return found


@pytest.fixture
def checked(monkeypatch) -> list[str]:
    """Ids of the rows that are checked in this process."""
    ids: list[str] = []

    def recorded(row, kind, data):
        ids.append(row["id"])
        return check_row(row, kind, data)

    monkeypatch.setattr(workers, "check_row", recorded)
    return ids


def started(folder: Path, processes: int, first: str = "") -> subprocess.Popen:
    program = f"""
import os, signal
from pathlib import Path
from siqvl.data.preparation.prepare import prepare
from siqvl.recipe import DataPrep, Source
if __name__ == "__main__":
    {first or "pass"}
    data = DataPrep(rows_per_shard=500, processes={processes})
    source = Source(kind="shapes", max_samples={ROWS})
    prepare([source], "sft", Path("out"), data=data, seed=0)
"""
    (folder / "program.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "program.py"]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)


def workers_of(folder: Path) -> list[str]:
    """Processes whose working directory is the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(process.name)
        except OSError:  # it has ended, or is another user's
            continue
    return found


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.integration
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_goes_on_where_it_was(tmp_path, undisturbed, checked, processes):
    process = started(tmp_path, processes)
    wait_until(lambda: len(list(tmp_path.glob(".out.preparing-*/piece-*"))) >= 2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    wait_until(lambda: not workers_of(tmp_path))
    done = len(list(tmp_path.glob(".out.preparing-*/piece-*")))
    data = DataPrep(rows_per_shard=500)
    prepare(SOURCES, RowKind.SFT, tmp_path / "out", data=data, seed=0)
    assert 0 < len(checked) <= ROWS - (done - 1) * BLOCK
    assert content(tmp_path / "out") == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "program.py"]


@pytest.mark.integration
def test_a_run_that_is_killed_while_it_merges_checks_no_row_again(tmp_path, undisturbed, checked):
    kill = (
        "import siqvl.data.preparation.merge as m; m.render_report = "
        "lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert started(tmp_path, 1, kill).wait() == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    (half,) = tmp_path.glob("out.tmp-*")
    with pytest.raises(UserError, match="holds no prepared data"):
        load_prepared(half, RowKind.SFT)
    data = DataPrep(rows_per_shard=500)
    prepare(SOURCES, RowKind.SFT, tmp_path / "out", data=data, seed=0)
    assert checked == []
    assert content(tmp_path / "out") == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "program.py"]


def interrupted(out: Path, monkeypatch) -> Path:
    """Prepare until all pieces are there and the merge fails; the folder with the pieces."""
    with monkeypatch.context() as patch:
        patch.setattr(merge, "render_report", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(SOURCES, RowKind.SFT, out, data=DataPrep(rows_per_shard=500), seed=0)
    (work,) = out.parent.glob(f".{out.name}.preparing-*")
    return work


def test_torn_and_missing_pieces_are_made_again(tmp_path, undisturbed, checked, monkeypatch):
    out = tmp_path / "out"
    work = interrupted(out, monkeypatch)
    pieces = sorted(work.glob("piece-*"))
    assert len(pieces) == 5
    pieces[1].write_bytes(pieces[1].read_bytes()[:-10])
    flipped = bytearray(pieces[3].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    pieces[3].write_bytes(flipped)
    pieces[4].unlink()
    (work / ".piece-0000-00000004-77").write_bytes(b"half")
    checked.clear()
    prepare(SOURCES, RowKind.SFT, out, data=DataPrep(rows_per_shard=500), seed=0)
    assert len(checked) == 2 * BLOCK + 100
    assert content(out) == undisturbed


@pytest.mark.parametrize("change", [{"seed": 1}, {"data": DataPrep(max_characters=100_000)}])
def test_pieces_of_other_options_are_not_used(tmp_path, monkeypatch, checked, change):
    out = tmp_path / "out"
    interrupted(out, monkeypatch)
    checked.clear()
    manifest = prepare(SOURCES, RowKind.SFT, out, **({"data": DataPrep(), "seed": 0} | change))
    assert len(checked) == manifest.rows == ROWS
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_pieces_of_a_source_that_was_edited_are_not_used(tmp_path):
    table, out = tmp_path / "rows.jsonl", tmp_path / "out"
    good = '{"question": "q%d?", "answer": "a"}\n'
    table.write_text("".join(good % n for n in range(4)) + '{"question": "", "answer": "a"}\n')
    source = Source(kind="table", path=str(table))
    with pytest.raises(UserError, match="1 of the 5 rows checked so far are bad"):
        prepare([source], RowKind.SFT, out, data=DataPrep(), seed=0)
    table.write_text("".join(good % n for n in range(10, 15)))
    prepare([source], RowKind.SFT, out, data=DataPrep(), seed=0)
    rows, _ = load_prepared(out, RowKind.SFT)
    assert [row[0]["content"] for row in rows["prompt"]] == [f"q{n}?" for n in range(10, 15)]


def test_a_source_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    table = tmp_path / "rows.jsonl"
    table.write_text('{"question": "q?", "answer": "a"}\n')

    def slow(row, kind, data):
        table.write_text('{"question": "another?", "answer": "a"}\n')
        return check_row(row, kind, data)

    monkeypatch.setattr(workers, "check_row", slow)
    source = Source(kind="table", path=str(table))
    with pytest.raises(UserError, match="changed while it was being prepared"):
        prepare([source], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)


@pytest.mark.parametrize(
    ("shards", "processes"), [pytest.param(1, 2, marks=pytest.mark.integration), (3, 1)]
)
@pytest.mark.usefixtures("quick_children")
def test_shards_and_processes_change_no_byte(tmp_path, undisturbed, checked, shards, processes):
    folders = [tmp_path / f"shard{shard}" for shard in range(shards)]
    data = DataPrep(rows_per_shard=500, processes=processes)
    for shard, folder in enumerate(folders):
        options = {"data": data, "seed": 0, "shard": shard, "shards": shards}
        prepare_pieces(SOURCES, RowKind.SFT, folder, **options)
    if processes == 1:
        assert len(checked) == len(set(checked)) == ROWS
    out = tmp_path / "out"
    merge_pieces(folders, SOURCES, RowKind.SFT, out, data=data, seed=0)
    assert content(out) == undisturbed


@pytest.mark.parametrize(
    ("size", "processes"),
    [
        *((size, 1) for size in (1, BLOCK, 2 * BLOCK, 3 * BLOCK + 7)),
        pytest.param(3 * BLOCK + 7, 2, marks=pytest.mark.integration),
    ],
)
@pytest.mark.usefixtures("quick_children")
def test_a_stream_of_unknown_size_is_split_likewise(
    tmp_path, monkeypatch, make_row, size, processes
):
    from siqvl.data import sources

    class Endless:
        kinds = frozenset(RowKind)

        def check(self, source, kind):
            pass

        def rows(self, source, kind, seed):
            texts = [[{"role": "user", "content": f"{number}?"}] for number in range(size)]
            return (make_row(number=n, images=[], prompt=texts[n]) for n in range(size))

    monkeypatch.setitem(sources.SOURCES, "endless", Endless())
    stream = [Source(kind="endless"), Source(kind="shapes", max_samples=3)]
    whole = tmp_path / "whole"
    manifest = prepare(stream, RowKind.SFT, whole, data=DataPrep(), seed=0)
    assert manifest.rows_of_sources == [size, 3]
    folders = [tmp_path / f"shard{shard}" for shard in range(2)]
    for shard, folder in enumerate(folders):
        data = DataPrep(processes=processes)
        options = {"data": data, "seed": 0, "shard": shard, "shards": 2}
        prepare_pieces(stream, RowKind.SFT, folder, **options)
    out = tmp_path / "out"
    merge_pieces(folders, stream, RowKind.SFT, out, data=DataPrep(), seed=0)
    assert content(out) == content(whole)


def test_a_stream_goes_on_where_it_was(tmp_path, made_source, make_row, checked):
    texts = [[{"role": "user", "content": f"{number}?"}] for number in range(600)]
    rows = [make_row(number=n, images=[], prompt=text) for n, text in enumerate(texts)]

    def failing():
        yield from rows[:520]
        raise OSError("the network is gone")

    out = tmp_path / "out"
    with pytest.raises(OSError, match="the network is gone"):
        prepare([made_source(failing())], RowKind.SFT, out, data=DataPrep(), seed=0)
    checked.clear()
    prepare([made_source(rows)], RowKind.SFT, out, data=DataPrep(), seed=0)
    assert checked == [row["id"] for row in rows[256:]]  # a block at most is lost, and its next
    assert load_prepared(out, RowKind.SFT)[0]["id"] == [row["id"] for row in rows]


def test_what_is_wrong_with_shards_is_named(tmp_path):
    folders = [tmp_path / f"shard{shard}" for shard in range(2)]
    source = [Source(kind="shapes", max_samples=BLOCK + 1)]
    out, common = tmp_path / "out", {"data": DataPrep(), "seed": 0}

    def merged(*which: Path):
        merge_pieces(list(which), source, RowKind.SFT, out, **common)

    for shard, folder in enumerate(folders):
        prepare_pieces(source, RowKind.SFT, folder, **common, shard=shard, shards=2)
    with pytest.raises(UserError, match=r"piece 1 of source 0 is in none of .*shard0; run"):
        merged(folders[0])
    with pytest.raises(UserError, match="nothing holds no complete shard"):
        merged(folders[0], tmp_path / "nothing")
    options = common | {"seed": 1}
    prepare_pieces(source, RowKind.SFT, folders[1], **options, shard=1, shards=2)
    with pytest.raises(UserError, match="shard1 were prepared differently; run all of them again"):
        merged(*folders)
    prepare_pieces(source, RowKind.SFT, folders[1], **common, shard=1, shards=2)
    (piece,) = folders[1].glob("piece-*")
    piece.write_bytes(piece.read_bytes()[:-1])
    with pytest.raises(UserError, match="was damaged after it was written; run its shard again"):
        merged(*folders)
    assert not out.exists()
