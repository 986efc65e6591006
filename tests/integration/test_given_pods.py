"""What a cluster gives, what it refuses and what it does not have: seen by real clients."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback.cluster import Cluster
from loopback.image_pods import ImagePods
from loopback.limits import DEFAULTS
from loopback.pods import ProcessPods
from loopback.registry import AlreadyExists, Different

from siqvl.recipe import Recipe
from tests.integration.conftest import CODE, IMAGES

pytestmark = pytest.mark.integration

TASK = ("tasks/data_prep.py", "data_prep", "--stage", "projector_alignment")
WAIT = ("--wait", "--poll-interval", "1")


@dataclass
class Allowing:
    """A cluster that allows what Flyte does by default, and a checkout to run from."""

    cluster: Cluster
    checkout: Path
    programs: Path
    recipe: Recipe

    def write(self, name: str, **compute: dict[str, Any]) -> str:
        """The small recipe with other requests."""
        content = self.recipe.model_dump(mode="json")
        for kind, request in compute.items():
            content["compute"][kind] |= request
        (self.checkout / "recipes" / name).write_text(yaml.safe_dump(content))
        return f"recipes/{name}"

    def pyflyte(self, *arguments: str, code: int, **variables: str) -> str:
        done = subprocess.run(
            [self.programs / "pyflyte", "-c", str(self.cluster.config_file), *arguments],
            cwd=self.checkout,
            env=self.cluster.environment(PYTHONPATH=str(self.checkout), **variables),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        printed = done.stdout + done.stderr
        assert done.returncode == code, printed
        return " ".join(printed.replace("│", " ").split())

    def run(self, *words: str, code: int = 0, **variables: str) -> str:
        return self.pyflyte("run", "--remote", "--copy", "all", *words, code=code, **variables)

    def versions(self, name: str) -> set[str]:
        shelf = self.cluster.registry.tasks
        return {key[3] for key in shelf.specs if key[2] == name}


@pytest.fixture(scope="module")
def allowing(
    tmp_path_factory: pytest.TempPathFactory,
    small_recipe: Callable[..., Recipe],
    code: Callable[..., Path],
    forked: Path,
) -> Iterator[Allowing]:
    folder = tmp_path_factory.mktemp("allowing")
    checkout = folder / "checkout"
    checkout.mkdir()
    code(checkout, CODE)
    content = small_recipe(folder).model_dump(mode="json")
    content |= {"output_dir": "outputs"}
    content["tracking"] |= {"uri": f"sqlite:///{folder}/mlflow.db"}
    for part in ("vision", "language"):
        content["model"][part] = f"recipes/tiny_base/{part}"
    modest = {"cpus": 1, "memory": "1Gi"}
    content["compute"] = {kind: dict(modest) for kind in ("data", "training", "evaluation")}
    pods = ImagePods(checkout, ProcessPods(forked))
    variables = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    place = folder / "cluster"
    with Cluster(
        images=IMAGES, variables=variables, limits=DEFAULTS, folder=place, pods=pods
    ) as cluster:
        yield Allowing(cluster, checkout, forked, Recipe.model_validate(content))


def test_a_task_above_the_limit_is_refused_when_it_is_registered(allowing: Allowing) -> None:
    """In the words that Flyte 1.16.8 was seen to have."""
    recipe = allowing.write("large.yaml", data={"memory": "12Gi"})
    printed = allowing.run(*TASK, "--recipe", recipe, code=1)
    assert (
        "Requested MEMORY limit [12Gi] is greater than current limit set in the platform "
        "configuration [1Gi]. Please contact Flyte Admins to change these limits" in printed
    )
    assert not allowing.cluster.executions


def test_an_override_above_the_limit_is_one_sentence_before_anything_is_loaded(
    allowing: Allowing, tmp_path: Path
) -> None:
    recipe = allowing.write("large.yaml", evaluation={"memory": "12Gi", "cpus": 4})
    (tmp_path / "anything").write_text("that is never looked at")
    inputs = ("--checkpoint", str(tmp_path), "--data", str(tmp_path), "--recipe", recipe)
    printed = allowing.run(*WAIT, "workflows/evaluated.py", "evaluated", *inputs, code=255)
    assert "this pod was given 1Gi of the 12Gi of memory that it asked for: " in printed
    assert "`task_resources.limits`" in printed
    (node,) = allowing.cluster.executions[-1].of_task("evaluation")
    (pod,) = node.pods  # which is not tried again
    assert "this pod was given 2 CPUs, 1Gi of memory\n" in pod.printed()


def test_a_pod_says_what_it_was_given(allowing: Allowing) -> None:
    allowing.run(*WAIT, *TASK, "--recipe", allowing.write("small.yaml"))
    (pod,) = allowing.cluster.executions[-1].pods
    assert pod.printed().count("this pod was given 1 CPUs, 1Gi of memory\n") == 1


def test_a_secret_that_is_missing_is_one_sentence_before_anything_else(allowing: Allowing) -> None:
    variables = {"SIQVL_SECRETS": "HF_TOKEN,WANDB_KEY"}
    words = (*WAIT, "--overwrite-cache", *TASK, "--recipe", allowing.write("small.yaml"))
    allowing.cluster.secrets["siqvl/WANDB_KEY"] = "hush"
    printed = allowing.run(*words, code=255, **variables)
    assert "the Flyte secret `siqvl` has no HF_TOKEN, which SIQVL_SECRETS promised" in printed
    assert "hush" not in printed
    (node,) = allowing.cluster.executions[-1].nodes
    assert len(node.pods) == 1
    allowing.cluster.secrets["siqvl/HF_TOKEN"] = "hush"
    allowing.run(*words, **variables)


def test_a_task_alone_runs_with_whatever_it_is_registered_with(allowing: Allowing) -> None:
    """Each of these was refused: `task with different structure already exists`."""
    plain = ("--recipe", allowing.write("small.yaml"))
    name = "tasks.data_prep.data_prep"
    allowing.run(*TASK, *plain)
    seen = allowing.versions(name)
    other = ("--recipe", allowing.write("other.yaml", data={"labels": {"team": "vision"}}))
    several: list[tuple[tuple[str, ...], dict[str, str]]] = [
        (other, {}),
        (("--recipe", allowing.write("longer.yaml", data={"timeout_minutes": 9})), {}),
        (plain, {"SIQVL_SECRETS": "WANDB_KEY"}),
        (plain, {"MLFLOW_TRACKING_URI": "https://mlflow.example.org"}),
        (plain, {"OMP_NUM_THREADS": "1"}),
    ]
    for words, variables in several:
        allowing.run(*TASK, *words, **variables)
        now = allowing.versions(name)
        assert len(now) == len(seen) + 1, (words, variables)
        seen = now
    allowing.run(*TASK, *plain)  # as before
    changed = ("--set", json.dumps(["seed=5"]))  # of which nothing is in the task
    allowing.run(*TASK, *plain, *changed)
    assert allowing.versions(name) == seen
    for execution in allowing.cluster.executions:
        execution.cancel.set("enough was seen")


def test_the_loopback_compares_templates_as_flyteadmin_does(allowing: Allowing) -> None:
    """In its words, and with the path that differs."""
    allowing.run(*TASK, "--recipe", allowing.write("small.yaml"))
    shelf = allowing.cluster.registry.tasks
    key = next(key for key in shelf.specs if key[2] == "tasks.data_prep.data_prep")
    id, spec = shelf.specs[key]
    changed = type(spec).FromString(spec.SerializeToString())
    changed.template.metadata.retries.retries += 1
    with pytest.raises(Different) as caught:
        shelf.add(id, changed)
    message = str(caught.value)
    assert message.startswith(
        "tasks.data_prep.data_prep task with different structure already exists. (Please register "
        "a new version of the task):\n/template/metadata/retries/retries:\n\t- "
    )
    with pytest.raises(AlreadyExists, match="task with identical structure already exists"):
        shelf.add(id, spec)


def test_register_ships_what_a_task_needs(allowing: Allowing) -> None:
    """9.4 MB went to every pod: base weights that images have, pictures of the docs."""
    (allowing.checkout / "docs" / "images").mkdir(parents=True)
    (allowing.checkout / "docs" / "images" / "runs.png").write_bytes(bytes(range(256)) * 4000)
    (allowing.checkout / "notes.txt").write_text("of the user's own")
    words = ("register", "--copy", "all", "-p", "siqvl", "-d", "development", "tasks")
    allowing.pyflyte(*words, code=0, SIQVL_RECIPE=allowing.write("small.yaml"))
    store = allowing.cluster.store
    shipped = [
        address for address in store.list(store.address("uploads")) if address.endswith(".tar.gz")
    ]
    sizes = {address: len(store.get(address) or b"") for address in shipped}
    assert sizes
    assert max(sizes.values()) < 1_000_000
