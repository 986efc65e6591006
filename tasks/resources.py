"""Image, compute, cache, retries, secrets and environment of every task, in one place.

What a task asks of a cluster is in the recipe's `compute`, by kind of task. It is known when a task
is registered for the recipe on the command line, and the pipeline sets it anew for the recipe it is
started with, so one registration serves a tiny recipe and a large one alike.

What belongs to the cluster is read from the environment of who registers:

    SIQVL_RECIPE=recipes/qwen2.5-0.5b.yaml          of `pyflyte register`: whose requests tasks have
    MLFLOW_TRACKING_URI=https://mlflow.example.org  where pods log to
    SIQVL_FLYTE_CONSOLE=https://flyte.example.org   links back from MLflow's runs
    SIQVL_FLYTE_ADMIN=http://flyteadmin.flyte:81   where pods ask what became of executions
    SIQVL_SECRETS=HF_TOKEN,MLFLOW_TRACKING_TOKEN    keys of the Flyte secret `siqvl`, given to pods
"""

from __future__ import annotations

import os
import re
import sys
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from flytekit import Cache, PodTemplate, Resources, Secret
from flytekit.extras.accelerators import GPUAccelerator

from siqvl.errors import UserError
from siqvl.files import folder_hash
from siqvl.recipe import Recipe, has_password
from siqvl.recipe.compute import Kind
from siqvl.version import git_sha
from tasks.contracts import on_cluster
from tasks.default_recipe import ROOT, TINY
from tasks.flyte_tags import KIND
from tasks.given_recipe import given_recipe, typed
from tasks.pod_template import TaskPod, plan_pods

SECRET_GROUP = "siqvl"
#: Of tasks that plan others.
_PLANS = {"retries": 0, "interruptible": False, "timeout": 0}
#: Recipes that this process plans pipelines for, the last one last.
_planned: list[Recipe] = []
#: In a pod: `code()` of the machine that registered its task.
REGISTERED_CODE = "SIQVL_CODE"
#: Handed on to pods as they are; they say where things are, and hold no secrets.
HANDED_ON = (
    "MLFLOW_TRACKING_URI",
    "SIQVL_FLYTE_ADMIN",
    "SIQVL_FLYTE_CONSOLE",
    "SIQVL_GIT_SHA",
    "SIQVL_SECRETS",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "OMP_NUM_THREADS",
)


def policy(kind: Kind) -> dict[str, Any]:
    """Return the arguments of `@task` for one kind of task.

    A pod that plans a pipeline declares its tasks without retries: an override of 0 counts as none
    for Flyte, which then takes those of the task. Of a task that runs alone they are the recipe's.
    """
    recipe, secrets = registered_recipe(), secret_keys()
    environment = {KIND: kind.value, **_environment()}
    return {
        "container_image": f"{{{{.image.{kind}.fqn}}}}:{{{{.image.{kind}.version}}}}",
        **asked(kind, recipe),
        **({"retries": 0} if on_cluster() else {}),
        "environment": environment,
        "secret_requests": [
            Secret(
                group=SECRET_GROUP, key=key, env_var=key, mount_requirement=Secret.MountType.ENV_VAR
            )
            for key in secrets
        ],
        "pod_template": _pod(kind, recipe, environment, secrets),
        "pod_template_name": recipe.compute.of(kind).pod_template_name,
    }


def planner() -> dict[str, Any]:
    """Return the arguments of `@dynamic`, which plans tasks and does no work itself.

    It is not tried again when one of them fails for good: that would try all of them again.
    """
    return {**policy(Kind.DATA), **_PLANS}


def plan(recipe: Recipe) -> None:
    """Say in a pod that plans a pipeline for which recipe it does, before it plans anything.

    What a recipe asks of the cluster is then said to every node: resources and the like by
    `asked`, or `asked_to_plan` for tasks that plan again, the rest by the tasks' pod templates.
    """
    if on_cluster():
        plan_pods(recipe)
        _planned.append(recipe)  # for tasks that are declared from now on


def asked_to_plan(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe asks for a task that plans, as arguments of `with_overrides`."""
    return {**asked(Kind.DATA, recipe), **_PLANS}


def cached() -> Cache:
    """Return the cache of a task: equal inputs and equal code have an equal result.

    Where runs are logged does not count.

    Artifacts count by their content and recipes by the part that matters, see `tasks/contracts.py`.
    """
    return Cache(version=code(), ignored_inputs=("run",))


def asked(kind: Kind, recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe asks for, as arguments of `@task` and of `with_overrides`."""
    request = recipe.compute.of(kind)
    wanted = Resources(
        cpu=str(request.cpus),
        mem=request.memory,
        gpu=str(request.gpus) if request.gpus else None,
        ephemeral_storage=request.disk,
    )
    return {
        "requests": wanted,
        "limits": wanted,
        # Loader workers hand batches over in shared memory, of which a pod has 64 MiB.
        "shared_memory": request.shared_memory or (True if request.gpus else None),
        "retries": request.retries,
        "interruptible": request.interruptible,
        # none: Flyte's counts the wait for a machine, so tasks keep time (tasks/time_limit.py)
        "timeout": timedelta(0),
        # Flyte chooses nodes by a label that the cluster has set, unless the recipe names one.
        "accelerator": GPUAccelerator(request.gpu_type)
        if request.gpu_type and not request.gpu_label
        else None,
    }


@cache
def code() -> str:
    """Return a hash of the sources that decide on results, as they lie on this machine."""
    folders = [ROOT / name for name in ("siqvl", "tasks", "workflows")]
    hashes = [folder_hash(one, lambda path: path.suffix in {".py", ".jinja"}) for one in folders]
    return "-".join(digest[:12] for digest in hashes)


def registered_recipe() -> Recipe:
    """Return the recipe that tasks are registered for.

    It is the one on the command line (`--recipe`), else that of SIQVL_RECIPE, else tiny; with the
    changes on the command line (`--set`). In a pod that plans a pipeline it is that pipeline's.

    Raises:
        UserError: SIQVL_RECIPE names no recipe, or there is no key that is to be changed.
    """
    if _planned:
        return _planned[-1]
    remote = "--remote" in sys.argv
    changes = typed("--set") if remote else []
    for value in typed("--recipe") if remote else []:
        if value.lstrip().startswith("{") or Path(value).is_file():
            return given_recipe(value, changes)
    named = os.environ.get("SIQVL_RECIPE")
    return (Recipe.load(named) if named else TINY).changed(changes)


def _pod(
    kind: Kind, recipe: Recipe, environment: dict[str, str], secrets: list[str]
) -> PodTemplate:
    """The pod of a kind of task, which covers what else is registered with it.

    `register` makes the launch plan `scheduled`, too, whose recipe is part of it.
    """
    covers: dict[str, Any] = {"environment": environment, "secrets": secrets}
    if "register" in sys.argv:
        covers["recipe"] = recipe.hash()
    return TaskPod(kind, recipe, covers)


def _environment() -> dict[str, str]:
    """What a pod needs to find its tracking server and to say which code it runs.

    Raises:
        UserError: a password in it, which everybody who may see the task would read.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if has_password(uri):
        raise UserError(
            "MLFLOW_TRACKING_URI has a password in it, which Flyte would show with the task: keep "
            f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the secret `{SECRET_GROUP}` "
            "and name them in SIQVL_SECRETS"
        )
    handed_on = {name: os.environ[name] for name in HANDED_ON if os.environ.get(name)}
    if not handed_on.get("SIQVL_GIT_SHA") and {"--remote", "register"} & set(sys.argv):
        handed_on["SIQVL_GIT_SHA"] = git_sha()
    # A pod that registers further tasks hands on what its own were registered with.
    registered = os.environ.get(REGISTERED_CODE) or code()
    return {REGISTERED_CODE: registered, **handed_on}


def secret_keys() -> list[str]:
    """Return keys of the Flyte secret, which are environment variables of pods too.

    Raises:
        UserError: a name that no environment variable has.
    """
    keys = [key.strip() for key in os.environ.get("SIQVL_SECRETS", "").split(",") if key.strip()]
    for key in keys:
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", key):
            raise UserError(
                f"SIQVL_SECRETS has {key!r}: name environment variables, like "
                "SIQVL_SECRETS=HF_TOKEN,MLFLOW_TRACKING_TOKEN"
            )
    return keys
