"""What a recipe may ask of a cluster: quantities, schedules, and requests that contradict."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Compute, Kind, Request

RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def tiny(**sections: dict[str, Any]) -> Recipe:
    """The tiny recipe with keys of `compute` and `distributed` set."""
    content = yaml.safe_load((RECIPES / "tiny.yaml").read_text())
    return Recipe.model_validate(content | sections)


@pytest.mark.parametrize("amount", ["1", "512", "64k", "64Ki", "500M", "500Mi", "16Gi", "2T"])
def test_bytes_are_written_as_kubernetes_reads_them(amount: str) -> None:
    assert Request(memory=amount).memory == amount


@pytest.mark.parametrize(
    "amount", ["", "0", "0Gi", "-1Gi", "1.5Gi", "16GB", "16gi", "16K", "16kI", "Gi", "16 Gi", "1e9"]
)
@pytest.mark.parametrize("key", ["memory", "disk", "shared_memory"])
def test_other_bytes_are_refused_by_name(key: str, amount: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny(compute={"training": {key: amount}})
    message = caught.value.message
    assert message.startswith(f"recipe: `compute.training.{key}`: ")
    assert f"{amount!r} is no Kubernetes quantity of bytes; write it like 16Gi" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("sections", "messages"),
    [
        (
            {"compute": {"training": {"gpu_type": "nvidia-l4"}}},
            ["`compute.training`", "gpu_type is nvidia-l4, but gpus is 0"],
        ),
        (
            {"compute": {"evaluation": {"interruptible": True}, "system_retries": 0}},
            ["`compute`", "evaluation.interruptible needs `system_retries`"],
        ),
        (
            {
                "compute": {
                    "training": {"interruptible": True, "retries": 0},
                    "system_retries": None,
                }
            },
            ["`compute`", "training.interruptible needs `retries`"],
        ),
        (
            {"compute": {"system_retries": -1}},
            ["`compute.system_retries`", "got -1"],
        ),
        (
            {"compute": {"training": {"gpus": 2}}},
            ["compute.training.gpus is 2: set distributed.enabled: true", "processes: 2"],
        ),
        (
            {
                "compute": {"training": {"gpus": 2}},
                "distributed": {"enabled": True, "processes": 4},
            },
            ["distributed.processes is 4, but compute.training.gpus is 2"],
        ),
        (
            {"distributed": {"nodes": 2, "shared_dir": "/shared"}},
            ["`distributed`", "nodes is 2, but enabled is false"],
        ),
        (
            {"distributed": {"enabled": True, "nodes": 2}},
            ["`distributed`", "nodes is 2: set shared_dir to a folder that every machine mounts"],
        ),
        ({"compute": {"training": {"retries": -1}}}, ["`compute.training.retries`", "got -1"]),
        ({"compute": {"data": {"cpus": 0}}}, ["`compute.data.cpus`", "got 0"]),
        ({"compute": {"data": {"timeout_minutes": 0}}}, ["`compute.data.timeout_minutes`"]),
        ({"compute": {"data": {"grace_seconds": 4}}}, ["`compute.data.grace_seconds`"]),
        (
            {"compute": {"training": {"memry": "1Gi"}}},
            ["unknown key `compute.training.memry`, did you mean `memory`?"],
        ),
        ({"compute": {"trainings": {}}}, ["unknown key `compute.trainings`", "`training`?"]),
        ({"compute": {"schedule": "daily at two"}}, ["`compute.schedule`"]),
    ],
)
def test_requests_that_contradict_themselves_are_one_line(
    sections: dict[str, Any], messages: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        tiny(**sections)
    assert caught.value.message.startswith("recipe: ")
    assert "\n" not in caught.value.message
    for message in messages:
        assert message in caught.value.message


@pytest.mark.parametrize(
    "sections",
    [
        {"compute": {"training": {"gpus": 1, "gpu_type": "nvidia-l4"}}},
        {"compute": {"training": {"gpus": 2}}, "distributed": {"enabled": True, "processes": 2}},
        {"distributed": {"enabled": True, "processes": 2}},  # on CPUs
        {"distributed": {"enabled": True, "nodes": 2, "shared_dir": "/shared"}},
        {"compute": {"training": {"interruptible": True, "retries": 0}}},
        {"compute": {"data": {"interruptible": True, "retries": 1}, "system_retries": None}},
    ],
)
def test_requests_that_do_not_are_taken(sections: dict[str, Any]) -> None:
    assert tiny(**sections)


@pytest.mark.parametrize(
    ("distributed", "several"),
    [
        ({}, False),
        ({"processes": 4}, False),
        ({"enabled": True}, False),
        ({"enabled": True, "processes": 2}, True),
        ({"enabled": True, "nodes": 2, "shared_dir": "/shared"}, True),
    ],
)
def test_several_processes_are_counted_over_all_machines(
    distributed: dict[str, Any], several: bool
) -> None:
    assert tiny(distributed=distributed).distributed.several is several


@pytest.mark.parametrize("schedule", ["0 2 * * *", "*/15 8-18 * * mon-fri", "@hourly", "@weekly"])
def test_a_schedule_is_a_cron_expression_or_an_alias(schedule: str) -> None:
    assert Compute(schedule=schedule).schedule == schedule


@pytest.mark.parametrize(
    "schedule", ["", "0 2 * *", "0 2 * * * *", "0  2 * * *", "@fortnightly", "hourly", " @daily"]
)
def test_other_schedules_are_refused(schedule: str) -> None:
    with pytest.raises(ValidationError, match="schedule"):
        Compute(schedule=schedule)


def test_every_kind_of_task_has_its_own_request() -> None:
    compute = Compute(
        data=Request(cpus=1), training=Request(cpus=2), evaluation=Request(cpus=3, gpus=1)
    )
    assert [compute.of(kind).cpus for kind in Kind] == [1, 2, 3]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_ask_for_gpus_where_their_models_need_them(name: str) -> None:
    compute = Recipe.load(RECIPES / f"{name}.yaml").compute
    gpus = 1 if name.startswith("qwen") else 0
    assert (compute.training.gpus, compute.evaluation.gpus, compute.data.gpus) == (gpus, gpus, 0)
    assert all(compute.of(kind).retries > 0 for kind in Kind)
