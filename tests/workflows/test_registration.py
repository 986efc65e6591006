"""What a cluster would be told, compiled here."""

from pathlib import Path

import pytest
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.models.task import Resources as ResourcesModel
from flytekit.tools.translator import get_serializable

from siqvl.errors import UserError
from tasks.contracts import TINY
from tasks.dpo import dpo
from tasks.pipeline_run import open_run
from tasks.resources import heavy

ROOT = Path(__file__).parent.parent.parent
SETTINGS = SerializationSettings(
    image_config=ImageConfig(
        default_image=Image("default", "registry/default", "1"),
        images=[Image("siqvl", "registry/siqvl", "42")],
    )
)


def test_register_compiles_every_entity_without_a_cluster(pyflyte, checkout: Path) -> None:
    arguments = ["register", "--copy", "none", "--dry-run", "-p", "siqvl", "-d", "development"]
    printed = pyflyte(
        "-c", "flyte.config", *arguments, "--version", "v1", "workflows", folder=checkout
    )
    assert "Workflow: workflows.full_pipeline.full_pipeline" in printed
    for task in ("projector_alignment", "vqa_sft", "cot_sft", "dpo", "evaluation", "data_prep"):
        assert f"Task: tasks.{task}.{task} " in printed
    for task in ("tasks.data_prep.prepare_shard", "tasks.data_prep.merge_shards"):
        assert f"Task: {task} " in printed
    for task in ("preference_pairs", "pipeline_report", "promotion"):
        assert f"Task: tasks.{task}.{task} " in printed
    for dynamic in ("prepared_data", "evaluated", "random_tower"):
        assert f"Task: workflows.{dynamic}.{dynamic} " in printed


def test_tasks_run_in_the_named_image() -> None:
    container = get_serializable({}, SETTINGS, dpo).template.container
    assert container.image == "registry/siqvl:42"


def test_gpus_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIQVL_GPUS", "2")
    monkeypatch.setenv("SIQVL_MEMORY", "64Gi")
    policy = heavy()
    assert policy["requests"].gpu == "2"
    assert policy["requests"].mem == "64Gi"
    assert policy["shared_memory"] is True
    monkeypatch.setenv("SIQVL_GPUS", "two")
    with pytest.raises(UserError, match="SIQVL_GPUS='two' is no whole number"):
        heavy()


def test_no_gpu_is_asked_for_by_default() -> None:
    container = get_serializable({}, SETTINGS, dpo).template.container
    names = {entry.name for entry in container.resources.requests}
    assert ResourcesModel.ResourceName.GPU not in names


def test_a_pod_without_a_tracking_server_refuses_to_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        open_run(recipe=TINY)
    assert not list(tmp_path.iterdir())
