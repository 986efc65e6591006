"""The MLflow server goes away while a pipeline runs: nothing is lost, nothing comes twice."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from siqvl.recipe import PIPELINE, Recipe, Stage
from siqvl.tracking.outbox import FILES, NAME, Outbox
from siqvl.tracking.runs import client
from siqvl.tracking.sync import sync
from tests.integration.outage_drill import Drill, Ran, logged, points, run
from tests.loopback.tracking import MlflowServer

pytestmark = pytest.mark.integration

#: What a stage logs once, at its end.
SUMMARY = "train/train_"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


@pytest.fixture
def recipe(tmp_path: Path, small_recipe, request: pytest.FixtureRequest) -> Recipe:
    tracking = {"experiment": request.node.name, "patience_seconds": 3.0}
    content = small_recipe(tmp_path, tracking=tracking).model_dump(mode="json")
    for stage in content["stages"].values():
        stage |= {"max_steps": 12, "saving_steps": 3}
    return Recipe.model_validate(content)


def with_a_long_stage(recipe: Recipe) -> Recipe:
    """A server takes a while to come up."""
    content = recipe.model_dump(mode="json")
    content["stages"]["cot_sft"] |= {"max_steps": 240, "saving_steps": 80}
    return Recipe.model_validate(content)


def epochs(found: Counter, last: int) -> float:
    return next(value for name, step, value in found if (name, step) == ("train/epoch", last))


def states(server: MlflowServer, experiment: str) -> dict[str, str]:
    store = client(server.uri)
    found = store.get_experiment_by_name(experiment)
    assert found is not None
    runs = store.search_runs([found.experiment_id])
    return {run.info.run_name.split(" 2")[0]: run.info.status for run in runs}


def check(recipe: Recipe, server: MlflowServer, ran: Ran) -> None:
    """Every point of every stage is there once, and every run is in its true state."""
    experiment = recipe.tracking.experiment
    for stage in PIPELINE:
        found, wanted = points(server.uri, experiment, stage), logged(ran, stage)
        assert len(wanted) > 12
        last = recipe.stage(stage).max_steps
        wanted[("train/epoch", last, epochs(found, last))] += 1  # the stage's summary has it again
        assert found & wanted == wanted
        rest = found - wanted
        assert all(name.startswith(SUMMARY) and step == last for name, step, _ in rest)
        assert set(rest.values()) == {1}
    ended = states(server, experiment)
    assert set(ended.values()) == {"FINISHED"}
    assert len(ended) == 1 + 5 + 4 + 4  # pipeline, data, stages, evaluations


def is_empty(spool: Path) -> bool:
    outbox = Outbox(spool / NAME)
    return not outbox.streams() and not outbox.refusals() and os.listdir(spool / FILES) == []


def test_a_server_that_comes_back(
    recipe: Recipe, server: MlflowServer, tmp_path: Path, forked: Path
) -> None:
    recipe = with_a_long_stage(recipe)
    drill = Drill(killed_in=Stage.VQA_SFT, back_in=Stage.COT_SFT)
    ran = run(recipe, tmp_path / "run", server, drill, forked)
    assert ran.code == 0, ran.printed[-3000:]
    assert "does not answer" in ran.printed
    assert "answers again" in ran.printed
    check(recipe, server, ran)
    assert is_empty(tmp_path / "run" / "outputs" / "spool")


def test_a_server_that_does_not(
    recipe: Recipe, server: MlflowServer, tmp_path: Path, forked: Path
) -> None:
    ran = run(recipe, tmp_path / "run", server, Drill(killed_in=Stage.VQA_SFT), forked)
    assert ran.code == 0, ran.printed[-3000:]
    assert "siqvl track sync" in ran.printed
    spool = tmp_path / "run" / "outputs" / "spool"
    server.start()
    synced = list(sync(spool))
    assert not any(one.left for one in synced)
    check(recipe, server, ran)
    assert is_empty(spool)
