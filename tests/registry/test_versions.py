"""The model registry of a sqlite store: what a version is, and that nothing global is touched."""

import os
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.registry.versions import CHECKPOINT, RUN, Registry, keep_model
from siqvl.tracking.runs import RunLog, client, start_run
from tests.made_checkpoint import hash_of, made_checkpoint, weights_of


@pytest.fixture
def log(recipe: Recipe) -> RunLog:
    return start_run(recipe, "stage")


@pytest.fixture
def registry(log: RunLog, request: pytest.FixtureRequest) -> Registry:
    """A registered model of the test's own."""
    return Registry(log.uri, request.node.name.replace("[", "-").replace("]", ""))


def test_a_version_knows_what_it_is_made_of(
    log: RunLog, registry: Registry, recipe: Recipe, tmp_path: Path
) -> None:
    checkpoint = made_checkpoint(tmp_path / "checkpoint", recipe, "a")
    assert registry.register(log, checkpoint) == 1
    found = client(log.uri).get_model_version(registry.name, "1")
    assert found.run_id == log.run_id
    assert found.tags == {
        "siqvl.run_id": log.run_id,
        "siqvl.checkpoint": hash_of("a"),
        "siqvl.stage": "dpo",
        "siqvl.parent_checkpoint": "c" * 64,
        "siqvl.data_fingerprint": "d" * 64,
        "siqvl.recipe": "tiny",
        "siqvl.recipe_hash": recipe.hash(),
        "siqvl.code_version": "0.1.0+0123456789ab",
    }


def test_its_weights_are_stored_once_as_the_output_of_its_run(
    log: RunLog, registry: Registry, recipe: Recipe, tmp_path: Path
) -> None:
    registry.register(log, made_checkpoint(tmp_path / "checkpoint", recipe, "a"))
    store = client(log.uri)
    assert store.list_artifacts(log.run_id) == []
    (output,) = store.get_run(log.run_id).outputs.model_outputs
    model = store.get_logged_model(output.model_id)
    assert model.status.name == "READY"
    assert model.source_run_id == log.run_id
    folder = Path(model.artifact_location.removeprefix("file://"))
    (weights,) = folder.rglob("*.safetensors")
    assert weights == folder / "artifacts" / "checkpoint" / "model.safetensors"
    assert weights.read_bytes() == weights_of("a")
    assert not list(folder.rglob("*.pkl"))
    assert not list(folder.rglob("__pycache__"))


@pytest.mark.parametrize("status", ["PENDING", "READY"])
def test_a_model_that_a_killed_attempt_began_is_gone_on_with(
    log: RunLog, registry: Registry, recipe: Recipe, tmp_path: Path, status: str
) -> None:
    from mlflow.entities import LoggedModelOutput

    store = client(log.uri)
    experiment = store.get_run(log.run_id).info.experiment_id
    begun = store.create_logged_model(
        experiment, "dpo", source_run_id=log.run_id, tags={CHECKPOINT: hash_of("a")}
    )
    store.log_outputs(log.run_id, [LoggedModelOutput(begun.model_id, step=0)])
    if status == "READY":
        store.finalize_logged_model(begun.model_id, status)
    registry.register(log, made_checkpoint(tmp_path / "checkpoint", recipe, "a"))
    version = store.get_model_version(registry.name, "1")
    assert version.source == begun.artifact_location
    assert store.get_logged_model(begun.model_id).status.name == "READY"
    assert [one.model_id for one in store.get_run(log.run_id).outputs.model_outputs] == [
        begun.model_id
    ]


def test_it_is_a_model_that_mlflow_describes(
    log: RunLog, registry: Registry, recipe: Recipe, tmp_path: Path
) -> None:
    from mlflow.models import Model

    registry.register(log, made_checkpoint(tmp_path / "checkpoint", recipe, "a"))
    (output,) = client(log.uri).get_run(log.run_id).outputs.model_outputs
    location = client(log.uri).get_logged_model(output.model_id).artifact_location
    folder = Path(location.removeprefix("file://"))
    described = Model.load(str(folder))
    named = described.signature.inputs.input_names()
    assert named == ["image", "path", "question", "images", "messages"]
    assert [param.name for param in described.signature.params] == [
        "max_new_tokens",
        "temperature",
        "seed",
    ]
    flavor = described.flavors["python_function"]
    assert flavor["artifacts"]["checkpoint"]["path"] == "artifacts/checkpoint"
    assert flavor["config"]["max_image_pixels"] == recipe.data.max_image_pixels
    assert flavor["config"]["allow_paths"] is False
    assert "python_model" not in flavor  # nothing pickled
    pinned = (folder / "requirements.txt").read_text().split()
    assert {"mlflow==3.17.2", "torch==2.13.0", "transformers==5.23.0"} <= set(pinned)
    assert all("==" in line and "+" not in line for line in pinned)
    example = described.load_input_example(str(folder))
    assert list(example.columns) == ["image", "question"]


def test_a_run_registers_a_checkpoint_once(
    log: RunLog, registry: Registry, recipe: Recipe, tmp_path: Path
) -> None:
    checkpoint = made_checkpoint(tmp_path / "checkpoint", recipe, "a")
    assert [registry.register(log, checkpoint) for _ in range(2)] == [1, 1]
    assert len(client(log.uri).get_run(log.run_id).outputs.model_outputs) == 1
    another = start_run(recipe, "another attempt")
    assert registry.register(another, checkpoint) == 2
    newest = registry.find({CHECKPOINT: hash_of("a")})
    assert newest is not None
    assert (newest.number, newest.tags[RUN]) == (2, another.run_id)
    assert registry.find({CHECKPOINT: hash_of("b")}) is None


def test_an_alias_has_one_holder(
    log: RunLog, registry: Registry, recipe: Recipe, tmp_path: Path
) -> None:
    assert registry.holder("champion") is None
    for number, name in enumerate("ab", start=1):
        registry.register(log, made_checkpoint(tmp_path / name, recipe, name))
        registry.give("champion", number)
        holder = registry.holder("champion")
        assert holder is not None
        assert (holder.number, holder.tags[CHECKPOINT]) == (number, hash_of(name))


def test_nothing_global_is_touched(
    log: RunLog, registry: Registry, recipe: Recipe, tmp_path: Path
) -> None:
    import mlflow

    before = mlflow.get_tracking_uri(), dict(os.environ)
    registry.register(log, made_checkpoint(tmp_path / "checkpoint", recipe, "a"))
    assert (mlflow.get_tracking_uri(), dict(os.environ)) == before
    assert mlflow.active_run() is None
    assert not (tmp_path / "mlflow.db").exists()


def test_a_registry_that_is_away_costs_no_checkpoint(
    log: RunLog, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def away(*_: object, **__: object) -> None:
        raise MlflowException("connection refused\nby the server")

    monkeypatch.setattr(MlflowClient, "search_model_versions", away)
    checkpoint = made_checkpoint(tmp_path / "checkpoint", recipe, "a")
    registry = Registry(log.uri, "away")
    with pytest.raises(UserError) as caught:
        registry.register(log, checkpoint)
    assert caught.value.message == (
        "MLflow's model registry cannot be used: connection refused by the server"
    )
    assert keep_model(log, checkpoint, registry) is None
    assert log.flush()
    kept = client(log.uri).list_artifacts(log.run_id, "checkpoint")
    assert "checkpoint/model.safetensors" in {file.path for file in kept}


def test_an_upload_that_fails_leaves_no_version(
    log: RunLog, registry: Registry, recipe: Recipe, tmp_path: Path, monkeypatch
) -> None:
    from mlflow import MlflowClient

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    checkpoint = made_checkpoint(tmp_path / "checkpoint", recipe, "a")
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_model_artifacts", full)
        with pytest.raises(UserError, match="no space left"):
            registry.register(log, checkpoint)
    assert registry.find({CHECKPOINT: hash_of("a")}) is None
    (output,) = client(log.uri).get_run(log.run_id).outputs.model_outputs
    assert client(log.uri).get_logged_model(output.model_id).status.name == "FAILED"
    assert registry.register(log, checkpoint) == 1  # a second try
