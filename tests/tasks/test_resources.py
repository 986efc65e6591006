"""What tasks are registered with: requests, secrets, environment, image, cache."""

import json
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from flytekit import Resources, Secret
from flytekit.models.security import Secret as SecretModel

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from tasks import resources
from tasks.pod_template import TaskPod
from tasks.resources import (
    HANDED_ON,
    TINY,
    asked,
    cached,
    policy,
    registered_recipe,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _registered_on_a_plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*HANDED_ON, "SIQVL_RECIPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["pyflyte"])


def recipe_of(**training: Any) -> Recipe:
    content = TINY.model_dump(mode="json")
    content["compute"]["training"] = training
    return Recipe.model_validate(content)


def test_a_pod_has_the_grace_of_its_recipe() -> None:
    """Without a template it has Kubernetes' 30 s, which is what the recipe's default comes to."""

    def seconds(kind: Kind, recipe: Recipe) -> int | None:
        return TaskPod(kind, recipe, {}).pod_spec.termination_grace_period_seconds

    assert seconds(Kind.TRAINING, TINY) is None
    assert seconds(Kind.TRAINING, recipe_of(grace_seconds=115)) == 120
    assert seconds(Kind.DATA, recipe_of(grace_seconds=115)) is None


def test_the_request_of_a_kind_is_asked_for_and_is_the_limit() -> None:
    recipe = recipe_of(
        cpus=8,
        memory="64Gi",
        disk="200Gi",
        gpus=1,
        gpu_type="nvidia-tesla-a100",
        retries=5,
        interruptible=True,
        timeout_minutes=90,
    )
    found = asked(Kind.TRAINING, recipe)
    wanted = Resources(cpu="8", mem="64Gi", gpu="1", ephemeral_storage="200Gi")
    assert found["requests"] == found["limits"] == wanted
    assert (found["retries"], found["interruptible"]) == (5, True)
    assert found["timeout"] == timedelta(0)  # the task keeps its time itself
    assert found["accelerator"].to_flyte_idl().device == "nvidia-tesla-a100"
    assert found["shared_memory"] is True
    data = asked(Kind.DATA, recipe)
    assert data["requests"] == Resources(cpu="1", mem="1Gi")
    assert (data["accelerator"], data["shared_memory"]) == (None, None)
    assert data["timeout"] == timedelta(0)


@pytest.mark.parametrize(
    ("training", "shared"),
    [
        ({}, None),
        ({"gpus": 1}, True),
        ({"gpus": 1, "shared_memory": "8Gi"}, "8Gi"),
        ({"shared_memory": "8Gi"}, "8Gi"),
    ],
)
def test_loader_workers_of_gpus_have_shared_memory(training: dict, shared: object) -> None:
    assert asked(Kind.TRAINING, recipe_of(**training))["shared_memory"] == shared


def test_images_are_named_by_kind() -> None:
    found = [policy(kind)["container_image"] for kind in Kind]
    assert found == [
        "{{.image.data.fqn}}:{{.image.data.version}}",
        "{{.image.training.fqn}}:{{.image.training.version}}",
        "{{.image.evaluation.fqn}}:{{.image.evaluation.version}}",
    ]


def test_a_policy_has_all_that_a_pipeline_may_ask_anew() -> None:
    """An override replaces what was registered; it must leave nothing of it behind."""
    for kind in Kind:
        registered, overridden = policy(kind), asked(kind, TINY)
        assert {key: registered[key] for key in overridden} == overridden


def test_tasks_that_a_pod_plans_have_no_retries_of_their_own(monkeypatch) -> None:
    """An override of 0 counts as none for Flyte, which then takes those of the task."""
    assert policy(Kind.TRAINING)["retries"] == TINY.compute.training.retries > 0
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")
    for kind in Kind:
        assert policy(kind)["retries"] == 0


# Secrets and environment


def test_secrets_become_environment_variables_of_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    assert policy(Kind.DATA)["secret_requests"] == []
    monkeypatch.setenv("SIQVL_SECRETS", " HF_TOKEN, MLFLOW_TRACKING_TOKEN ,")
    requests = policy(Kind.DATA)["secret_requests"]
    assert [(secret.group, secret.key, secret.env_var) for secret in requests] == [
        ("siqvl", "HF_TOKEN", "HF_TOKEN"),
        ("siqvl", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_TOKEN"),
    ]
    for secret in requests:
        assert isinstance(secret, Secret)
        assert secret.mount_requirement == SecretModel.MountType.ENV_VAR


@pytest.mark.parametrize("keys", ["hf_token", "HF-TOKEN", "HF_TOKEN=hf_secret", "HF_TOKEN;OTHER"])
def test_what_is_no_name_of_a_secret_is_one_line(keys: str, monkeypatch) -> None:
    monkeypatch.setenv("SIQVL_SECRETS", keys)
    with pytest.raises(UserError, match=r"SIQVL_SECRETS=HF_TOKEN,MLFLOW_TRACKING_TOKEN") as caught:
        policy(Kind.DATA)
    assert "\n" not in caught.value.message


def test_pods_are_told_where_things_are_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    always = {
        "SIQVL_CODE": resources.code(),
        "SIQVL_KIND": "data",
    }
    assert policy(Kind.DATA)["environment"] == always
    known = {
        "SIQVL_CODE": resources.code(),
        "MLFLOW_TRACKING_URI": "https://mlflow.example.org:5000/a@b",
        "SIQVL_GIT_SHA": "0123abc",
        "SIQVL_SECRETS": "HF_TOKEN",  # so that what a pod registers asks for them, too
        "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": "https://hub.example.org",
        "OMP_NUM_THREADS": "4",
    }
    secret = {"HF_TOKEN": "hf_abc", "MLFLOW_TRACKING_PASSWORD": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    for name, value in (known | secret).items():
        monkeypatch.setenv(name, value)
    for kind in Kind:
        assert policy(kind)["environment"] == known | {"SIQVL_KIND": kind.value}
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert "HF_ENDPOINT" not in policy(Kind.DATA)["environment"]


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:hush@mlflow.example.org",
        "https://hush@mlflow.example.org",
        "postgresql://me:hush@db/mlflow",
        "s://:hush@h",
    ],
)
def test_a_password_in_the_address_is_refused_and_not_repeated(uri: str, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD in the secret `siqvl`") as caught:
        policy(Kind.DATA)
    assert "hush" not in caught.value.message
    assert "\n" not in caught.value.message


# Whose requests


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    content = yaml.safe_load((ROOT / "recipes" / "tiny.yaml").read_text()) | {"name": "larger"}
    content["compute"] = {"training": {"cpus": 77}}
    path = tmp_path / "larger.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("form", ["two words", "one word"])
def test_the_recipe_is_that_of_the_command_line(form: str, larger: Path, monkeypatch) -> None:
    option = ["--recipe", str(larger)] if form == "two words" else [f"--recipe={larger}"]
    words = ["pyflyte", "run", "--remote", "tasks/vqa_sft.py", "vqa_sft", *option]
    monkeypatch.setenv("SIQVL_RECIPE", str(ROOT / "recipes" / "qwen2.5-0.5b.yaml"))
    monkeypatch.setattr(sys, "argv", words)
    assert registered_recipe().name == "larger"
    assert policy(Kind.TRAINING)["requests"] == Resources(cpu="77", mem="4Gi")


def test_a_run_on_this_machine_is_registered_nowhere(larger: Path, monkeypatch) -> None:
    """So a recipe that is wrong is told by the run itself, not by the import of its tasks."""
    larger.write_text("name: [")
    monkeypatch.setattr(sys, "argv", ["pyflyte", "run", "w.py", "w", "--recipe", str(larger)])
    assert registered_recipe() == TINY


def test_else_it_is_the_environments_else_tiny(larger: Path, monkeypatch) -> None:
    assert registered_recipe() == TINY
    monkeypatch.setenv("SIQVL_RECIPE", str(larger))
    assert registered_recipe().name == "larger"
    inline = json.dumps({"base": str(larger), "name": "inline"})
    monkeypatch.setattr(
        sys, "argv", ["pyflyte", "run", "--remote", "w.py", "w", "--recipe", inline]
    )
    assert registered_recipe().name == "inline"  # written on the command line, it counts as a file


def test_a_recipe_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIQVL_RECIPE", "recipes/none.yaml")
    with pytest.raises(UserError, match=r"recipe file recipes/none.yaml does not exist"):
        registered_recipe()


# Cache


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the code that tasks think they run."""
    for name in ("siqvl", "tasks", "workflows"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / "tree" / name, ignore=ignored)
    monkeypatch.setattr(resources, "ROOT", tmp_path / "tree")
    return tmp_path / "tree"


def version() -> str:
    resources.code.cache_clear()
    found = cached()
    resources.code.cache_clear()
    return found.version


@pytest.mark.parametrize(
    "file",
    [
        "siqvl/training/sft.py",
        "siqvl/model/chat_template.jinja",
        "siqvl/page/style.css.jinja",
        "siqvl/report/pipeline_page.html.jinja",
        "tasks/training.py",
        "workflows/evaluated.py",
    ],
)
def test_a_changed_source_file_is_another_cache_version(tree: Path, file: str) -> None:
    before = version()
    with (tree / file).open("a") as source:
        source.write("\n")
    assert version() != before


def test_no_other_file_is(tree: Path) -> None:
    before = version()
    (tree / "siqvl" / "__pycache__").mkdir()
    (tree / "siqvl" / "__pycache__" / "recipe.py").write_text("compiled")
    (tree / "tasks" / "notes.txt").write_text("notes")
    assert version() == before
    (tree / "tasks" / "another.py").write_text("")
    assert version() != before


def test_the_version_is_that_of_the_code_wherever_it_lies(tree: Path, monkeypatch) -> None:
    there = version()
    monkeypatch.setattr(resources, "ROOT", ROOT)
    assert version() == there


def test_which_run_a_result_is_logged_to_does_not_count() -> None:
    assert cached().ignored_inputs == ("run",)


def test_pods_know_the_commit_they_were_registered_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "git_sha", lambda: "0123abcdef01.dirty")
    assert "SIQVL_GIT_SHA" not in policy(Kind.DATA)["environment"]  # asking git takes a while
    monkeypatch.setattr("sys.argv", ["pyflyte", "register", "workflows"])
    assert policy(Kind.DATA)["environment"]["SIQVL_GIT_SHA"] == "0123abcdef01.dirty"
