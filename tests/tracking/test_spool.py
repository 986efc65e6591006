"""Where a spool is, and what `siqvl track sync` does with one that was left."""

import os
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

from siqvl.cli.track import track
from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking.journal import Journal, journals
from siqvl.tracking.runs import client, end_run, run_log, start_run
from siqvl.tracking.spool import FOLDER, spool_of, sync, within
from tests.quick import children

POINTS = 400


@pytest.fixture
def recipe(tmp_path: Path, small_recipe, monkeypatch) -> Recipe:
    monkeypatch.chdir(tmp_path)
    return small_recipe(tmp_path)


def left_behind(folder: Path, uri: str, run_id: str, points: int = 3) -> None:
    journal = Journal.create(folder, uri=uri, run_id=run_id)
    for step in range(points):
        journal.append("metrics", values=[["loss", float(step), 1, step]])
    journal.close()


def steps(uri: str, run_id: str) -> list[int]:
    return [point.step for point in client(uri).get_metric_history(run_id, "loss")]


def test_the_spool_is_the_recipes_then_the_machines_then_beside_the_results(
    recipe: Recipe, monkeypatch
) -> None:
    assert spool_of(recipe).folder == Path(recipe.output_dir) / "spool"
    monkeypatch.setenv(FOLDER, "/of/the/machine")
    assert spool_of(recipe).folder == Path("/of/the/machine")
    content = recipe.model_dump()
    content["tracking"]["spool"] = "/of/the/recipe"
    assert spool_of(Recipe.model_validate(content)).folder == Path("/of/the/recipe")


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
    assert len(journals(tmp_path / "spool")) == 2
    with pytest.raises(UserError, match="is no folder"):
        list(sync(tmp_path / "nothing"))


def test_a_spool_in_a_blob_store(recipe: Recipe, tmp_path: Path) -> None:
    log = start_run(recipe, "pod")
    left_behind(tmp_path / "spool", log.uri, log.run_id)
    left_behind(tmp_path / "spool", "http://127.0.0.1:9", "b" * 32)
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "spool") + "/", "/bucket/spool/", recursive=True)
    with within("memory://bucket/spool") as folder:
        assert {one.run_id for one in sync(folder) if not one.left} == {log.run_id}
    assert steps(log.uri, log.run_id) == [0, 1, 2]
    kept = {Path(path).parts[-2] for path in store.find("/bucket/spool")}
    assert kept == {log.run_id, "b" * 32}  # nothing goes before all of it can
    with within("memory://bucket/spool") as folder:
        assert {one.run_id for one in sync(folder) if not one.left} == {log.run_id}
        (other,) = folder.glob(f"{'b' * 32}/*.jsonl")
        other.unlink()
    assert not store.exists("/bucket/spool")
    assert steps(log.uri, log.run_id) == [0, 1, 2]
    with pytest.raises(UserError, match="is no folder"), within("memory://bucket/other"):
        pass


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
    assert not any(one.left for one in sync(spool_of(recipe).folder))
    end_run(shared, "FINISHED")

    store = client(shared.uri)
    found = Counter(
        (int(point.value), point.step) for point in store.get_metric_history(shared.run_id, "loss")
    )
    assert found == Counter((writer, step) for writer in range(6) for step in range(POINTS))
    for writer in range(6):
        assert len(store.get_metric_history(shared.run_id, f"of/{writer}")) == POINTS
    assert len(store.get_run(shared.run_id).data.params) == 6
