"""Where a spool is, and what `siqvl track sync` does with one that was left."""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

from siqvl.cli.track import track
from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking.outbox import FILES, FOLDER, NAME, Outbox, outbox_place
from siqvl.tracking.runs import client, end_run, run_log, start_run
from siqvl.tracking.sync import fetched, sync
from tests.quick import children

POINTS = 400


@pytest.fixture
def recipe(tmp_path: Path, small_recipe, monkeypatch) -> Recipe:
    monkeypatch.chdir(tmp_path)
    return small_recipe(tmp_path)


def left_behind(folder: Path, uri: str, run_id: str, points: int = 3) -> None:
    outbox = Outbox.of_process(folder)
    logged = [("metric", ["loss", float(step), 1, step]) for step in range(points)]
    outbox.add(uri, run_id, logged)
    outbox.close()


def waiting(folder: Path) -> list[str]:
    outbox = Outbox(folder / NAME)
    try:
        return [one.run for one in outbox.streams()]
    finally:
        outbox.close()


def steps(uri: str, run_id: str) -> list[int]:
    return [point.step for point in client(uri).get_metric_history(run_id, "loss")]


def test_the_spool_is_the_recipes_then_the_machines_then_beside_the_results(
    recipe: Recipe, monkeypatch
) -> None:
    assert outbox_place(recipe).folder == Path(recipe.output_dir) / "spool"
    monkeypatch.setenv(FOLDER, "/of/the/machine")
    assert outbox_place(recipe).folder == Path("/of/the/machine")
    content = recipe.model_dump()
    content["tracking"]["spool"] = "/of/the/recipe"
    assert outbox_place(Recipe.model_validate(content)).folder == Path("/of/the/recipe")


def test_the_command_delivers_and_says_so(recipe: Recipe, tmp_path: Path) -> None:
    log = start_run(recipe, "left")
    left_behind(tmp_path / "spool", log.uri, log.run_id)
    done = CliRunner().invoke(track, ["sync", str(tmp_path / "spool")])
    assert done.exit_code == 0, done.output
    assert f"run {log.run_id}: 3 entries delivered" in done.output
    assert steps(log.uri, log.run_id) == [0, 1, 2]
    again = CliRunner().invoke(track, ["sync", str(tmp_path / "spool")])
    assert (again.exit_code, again.output.strip().startswith("0 of 0")) == (0, True)


def test_what_cannot_be_delivered_stays_with_a_reason(recipe: Recipe, tmp_path: Path) -> None:
    left_behind(tmp_path / "spool", "http://127.0.0.1:9", "a" * 32)
    left_behind(tmp_path / "spool", "http://127.0.0.1:9", "offline-1")
    done = CliRunner().invoke(track, ["sync", str(tmp_path / "spool")])
    assert done.exit_code == 1
    assert "127.0.0.1:9" in done.output
    assert "0 of 2" in done.output
    assert waiting(tmp_path / "spool") == ["a" * 32, "offline-1"]
    with pytest.raises(UserError, match="is no folder"):
        list(sync(tmp_path / "nothing"))


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/bucket", recursive=True)


def test_an_outbox_in_a_blob_store_keeps_what_was_not_delivered(
    recipe: Recipe, tmp_path: Path, bucket: fsspec.AbstractFileSystem
) -> None:
    """The folder is also somebody else's, as one that was named by mistake may be."""
    log = start_run(recipe, "pod")
    left_behind(tmp_path / "spool", log.uri, log.run_id)
    left_behind(tmp_path / "spool", "http://127.0.0.1:9", "b" * 32)
    (tmp_path / "page.html").write_text("a page")
    for run_id in (log.run_id, "b" * 32):
        outbox = Outbox.of_process(tmp_path / "spool")
        uri = log.uri if run_id == log.run_id else "http://127.0.0.1:9"
        place = {"place": outbox.keep(tmp_path / "page.html"), "folder": None}
        outbox.add(uri, run_id, [("artifact", place)])
        outbox.close()
    bucket.put(str(tmp_path / "spool") + "/", "/bucket/spool/", recursive=True)
    bucket.pipe("/bucket/spool/model.safetensors", b"weights")
    with fetched("memory://bucket/spool") as folder:
        assert {one.run_id for one in sync(folder) if not one.left} == {log.run_id}
        assert not (folder / "model.safetensors").exists()
    assert steps(log.uri, log.run_id) == [0, 1, 2]
    assert [file.path for file in client(log.uri).list_artifacts(log.run_id)] == ["page.html"]
    bucket.get_file(f"/bucket/spool/{NAME}", str(tmp_path / NAME))
    assert waiting(tmp_path) == ["b" * 32] * 2
    assert len(bucket.ls(f"/bucket/spool/{FILES}", detail=False)) == 1
    other = start_run(recipe, "other")
    database = sqlite3.connect(tmp_path / NAME)
    database.execute("UPDATE stream SET run = ?", (other.run_id,))
    database.commit()
    database.close()
    bucket.put_file(str(tmp_path / NAME), f"/bucket/spool/{NAME}")
    with fetched("memory://bucket/spool") as folder:
        assert not any(one.left for one in sync(folder, log.uri))
    assert steps(log.uri, other.run_id) == [0, 1, 2]
    assert bucket.find("/bucket") == ["/bucket/spool/model.safetensors"]


def test_a_folder_that_holds_no_outbox_is_left_alone(
    recipe: Recipe, bucket: fsspec.AbstractFileSystem
) -> None:
    bucket.pipe("/bucket/checkpoint/model.safetensors", b"weights")
    done = CliRunner().invoke(track, ["sync", "memory://bucket/checkpoint"])
    assert done.exit_code == 1
    assert f"holds no {NAME}" in done.output
    assert bucket.cat("/bucket/checkpoint/model.safetensors") == b"weights"
    with pytest.raises(UserError, match="holds no"), fetched("memory://bucket/nothing"):
        pass


def test_a_damaged_outbox_in_a_blob_store_stays(
    recipe: Recipe, bucket: fsspec.AbstractFileSystem, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.pipe(f"/bucket/spool/{NAME}", b"garbage" * 1000)
    done = CliRunner().invoke(track, ["sync", "memory://bucket/spool"])
    assert done.exit_code == 0, done.output
    assert caplog.text.count("is damaged") == 1
    assert bucket.cat(f"/bucket/spool/{NAME}") == b"garbage" * 1000


def test_journals_of_the_version_before_are_told_of(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "spool" / "run").mkdir(parents=True)
    (tmp_path / "spool" / "run" / "1-host-1-a.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="deliver them with that version"):
        list(sync(tmp_path / "spool"))


def write(recipe: Recipe, run_id: str, writer: int) -> None:
    log = run_log(recipe, run_id)
    for step in range(POINTS):
        log.metrics({"loss": float(writer), f"of/{writer}": 1.0}, step=step)
    log.params({f"writer_{writer}": os.getpid()})
    log.flush()


@pytest.mark.integration
def test_six_writers_on_one_store_lose_nothing(recipe: Recipe) -> None:
    shared = start_run(recipe, "shared")
    writers = [
        children.Process(target=write, args=(recipe, shared.run_id, writer)) for writer in range(6)
    ]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert {process.exitcode for process in writers} == {0}
    assert not any(one.left for one in sync(outbox_place(recipe).folder))
    end_run(shared, "FINISHED")

    store = client(shared.uri)
    found = Counter(
        (int(point.value), point.step) for point in store.get_metric_history(shared.run_id, "loss")
    )
    assert found == Counter((writer, step) for writer in range(6) for step in range(POINTS))
    for writer in range(6):
        assert len(store.get_metric_history(shared.run_id, f"of/{writer}")) == POINTS
    assert len(store.get_run(shared.run_id).data.params) == 6
