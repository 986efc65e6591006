"""What a pod has to have before its task begins."""

import importlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from flytekit.core.context_manager import FlyteEntities
from flytekit.core.python_auto_container import PythonAutoContainerTask

from siqvl.errors import UserError
from tasks.given import begun, check_given

ASKED = {"cpus": 4, "memory": "12Gi", "gpus": 0}
GIB = 2**30
PLANS = ("full_pipeline", "prepared_data", "evaluated", "sweep", "rewards")


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """This process, as a pod of a cluster."""
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")
    monkeypatch.setenv("SIQVL_CGROUP", str(tmp_path))
    monkeypatch.delenv("SIQVL_SECRETS", raising=False)

    def build(asked: dict[str, Any], **files: str) -> None:
        monkeypatch.setenv("SIQVL_ASKED", json.dumps(asked))
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)

    return build


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in error.value.message
    return error.value.message


def test_a_pod_that_has_what_it_asked_for_says_what_it_has(pod, caplog) -> None:
    pod(ASKED, memory_max=f"{12 * GIB}\n", cpu_max="400000 100000\n")
    check_given()
    (record,) = caplog.records
    assert record.getMessage() == "this pod was given 4 CPUs, 12Gi of memory"


def test_so_does_one_without_limits(pod, caplog) -> None:
    pod(ASKED)
    check_given()
    (record,) = caplog.records
    assert record.getMessage() == (
        "this pod was given all CPUs of its node, memory without a limit"
    )


def test_limits_in_whole_pages_are_no_less(pod) -> None:
    """500M are no whole number of pages; the kernel writes the number below."""
    pod(ASKED | {"memory": "500M"}, memory_max=f"{500_000_000 // 4096 * 4096}\n")
    check_given()


def test_less_memory_is_refused(pod) -> None:
    """As seen on Flyte 1.16.8: 12Gi and 4 CPUs asked for, 1Gi and 2 given."""
    pod(ASKED, memory_max=f"{GIB}\n", cpu_max="200000 100000\n")
    with pytest.raises(UserError) as caught:
        check_given()
    assert one_line(caught).startswith(
        "this pod was given 1Gi of the 12Gi of memory that it asked for: "
    )
    assert "`task_resources.limits` of FlyteAdmin" in one_line(caught)
    assert "lower `memory` in the recipe" in one_line(caught)


def test_fewer_cpus_are_a_warning(pod, caplog) -> None:
    pod(ASKED, memory_max="max\n", cpu_max="200000 100000\n")
    check_given()
    _, warning = caplog.records
    assert warning.levelno == logging.WARNING
    assert "given 2 of the 4 CPUs that it asked for, and takes longer" in warning.getMessage()
    assert "task_resources.limits" in warning.getMessage()


@pytest.mark.parametrize("visible", [0, 1])
def test_fewer_gpus_are_refused(visible: int, pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    pod(ASKED | {"gpus": 2})
    with pytest.raises(UserError, match=f"given {visible} of the 2 GPUs.*task_resources.limits"):
        check_given()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_given()


def test_torch_is_not_imported_where_no_gpu_was_asked_for(pod, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    pod(ASKED)
    check_given()


def test_secrets_that_are_not_there_are_named(pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod(ASKED, memory_max=f"{GIB}\n")
    monkeypatch.setenv("SIQVL_SECRETS", "HF_TOKEN,MLFLOW_TRACKING_TOKEN,WANDB_KEY")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError) as caught:
        check_given()
    assert one_line(caught).startswith("the Flyte secret `siqvl` has no HF_TOKEN, WANDB_KEY, which")
    assert "hush" not in one_line(caught)


def test_this_machine_is_no_pod(pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod(ASKED, memory_max="1\n")
    monkeypatch.delenv("FLYTE_INTERNAL_EXECUTION_ID")
    monkeypatch.setenv("SIQVL_SECRETS", "HF_TOKEN")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    check_given()


def test_a_task_begins_after_that(pod) -> None:
    began: list[int] = []

    @begun
    def body(steps: int) -> None:
        began.append(steps)

    pod(ASKED, memory_max="1\n")
    with pytest.raises(UserError, match="task_resources"):
        body(steps=3)
    assert not began
    pod(ASKED, memory_max="max\n")
    body(steps=3)
    assert began == [3]


def test_every_task_does(pod) -> None:
    """But for those that close the run of a pipeline that failed, perhaps of this."""
    for name in PLANS:
        importlib.import_module(f"workflows.{name}")
    importlib.import_module("tasks.elastic_training")
    pod(ASKED, memory_max="1\n")
    ours = {
        entity.name: entity
        for entity in FlyteEntities.entities
        if isinstance(entity, PythonAutoContainerTask)
        and entity.name.startswith(("tasks.", "workflows."))
    }
    assert len(ours) > 20
    begins = set()
    for name, entity in ours.items():
        inputs = dict.fromkeys(entity.python_interface.inputs)
        try:
            if name.endswith("elastic_training"):
                entity.execute(**inputs)
            else:
                entity.task_function(**inputs)
        except UserError as error:
            if "task_resources" in error.message:
                begins.add(name)
        except Exception:  # it went on, with inputs that are none
            continue
    closes = (
        "pipeline_failure.close_run",
        "pipeline_failure.close_rewards_run",
        "sweep_point.close_sweep",
    )
    without = {f"tasks.{name}" for name in closes}
    assert ours.keys() - begins == without
