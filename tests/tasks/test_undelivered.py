"""What a pod has logged and could not deliver outlives it."""

import logging
import os
from pathlib import Path

import pytest
from flytekit import FlyteContextManager
from flytekit.core.data_persistence import FileAccessProvider

from siqvl.recipe import Recipe
from siqvl.tracking.outbox import FOLDER, NAME, Outbox, outbox_place
from siqvl.tracking.runs import client, start_run
from siqvl.tracking.sync import sync
from tasks.undelivered import kept, on_pods_disk


@pytest.fixture
def outputs(tmp_path: Path):
    """Where a pod puts what it hands on."""
    access = FileAccessProvider(str(tmp_path / "sandbox"), str(tmp_path / "handed_on"))
    context = FlyteContextManager.current_context().with_file_access(access)
    with FlyteContextManager.with_context(context):
        yield tmp_path / "handed_on"


def left_behind(recipe: Recipe) -> str:
    log = start_run(recipe, "stage")
    outbox = Outbox.of_process(outbox_place(recipe).folder)
    outbox.add(log.uri, log.run_id, [("metric", ["loss", 1.0, 1, 7])])
    outbox.close()
    return log.run_id


def test_what_is_left_is_put_beside_the_outputs_and_can_be_delivered(
    recipe: Recipe, outputs: Path, caplog
) -> None:
    run_id = left_behind(recipe)
    with pytest.raises(ValueError, match="of the work"), kept(recipe, on_cluster=True):
        raise ValueError("of the work")
    (line,) = [one.message for one in caplog.records if "track sync" in one.message]
    address = Path(line.split("`siqvl track sync ")[1].split("`")[0])
    assert outputs in address.parents
    assert not any(one.left for one in sync(address))
    uri = recipe.tracking.uri or ""
    assert [point.step for point in client(uri).get_metric_history(run_id, "loss")] == [7]


def test_nothing_is_put_where_nothing_is_left_or_this_machine_stays(
    recipe: Recipe, outputs: Path
) -> None:
    with kept(recipe, on_cluster=True):
        pass
    left_behind(recipe)
    with kept(recipe, on_cluster=False):
        pass
    assert not outputs.exists() or not list(outputs.rglob(NAME))
    assert len(Outbox(outbox_place(recipe).folder / NAME).streams()) == 1


def test_work_that_is_done_stays_done_when_nothing_can_be_put(
    recipe: Recipe, outputs: Path, monkeypatch, caplog
) -> None:
    left_behind(recipe)

    def refuse(*arguments, **options):
        raise OSError("no space")

    monkeypatch.setattr(FileAccessProvider, "put_data", refuse)
    with caplog.at_level(logging.WARNING), kept(recipe, on_cluster=True):
        pass
    assert "no space" in caplog.text


def test_a_pod_has_its_outbox_on_its_own_disk(monkeypatch) -> None:
    monkeypatch.setenv(FOLDER, "/of/the/machine")
    on_pods_disk()
    assert Path("/of/the/machine") == Path(os.environ[FOLDER])
    monkeypatch.delenv(FOLDER)
    on_pods_disk()
    assert os.environ[FOLDER].endswith("/siqvl/spool")
