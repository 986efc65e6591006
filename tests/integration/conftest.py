"""A Flyte cluster on loopback with an MLflow server, and a checkout of the code to run from it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback.cluster import Cluster
from loopback.image_pods import ImagePods
from loopback.pods import ProcessPods
from loopback.records import Execution
from loopback.tracking import mlflow_server

from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from tests.integration.readme_commands import pipeline

CODE = ("siqvl", "tasks", "workflows", "recipes", "flyte.config")
CODE += (".gitignore", ".dockerignore", ".flyteignore")
ROOT = Path(__file__).parents[2]
IMAGES = {kind.value: f"registry/siqvl:{kind}" for kind in Kind}
SECONDS = 900


@dataclass
class Remote:
    """What a user has: a checkout, a cluster that flyte.config names, a tracking server."""

    cluster: Cluster
    checkout: Path
    tracking: str
    pods: ImagePods
    recipe: Recipe  # small, and written to recipes/small.yaml
    programs: str  # the folder of `pyflyte`
    printed: list[str] = field(default_factory=list)

    @property
    def small(self) -> list[str]:
        """The options that name the small recipe."""
        return ["--recipe", "recipes/small.yaml"]

    def write(self, name: str, change: Callable[[dict[str, Any]], Any] | None = None) -> str:
        """A recipe of the checkout, the small one with something changed; its path from there."""
        content = self.recipe.model_dump(mode="json")
        if change:
            change(content)
        (self.checkout / "recipes" / name).write_text(yaml.safe_dump(content))
        return f"recipes/{name}"

    def pyflyte(self, *arguments: str, code: int | None = 0, **variables: str) -> str:
        """`pyflyte -c flyte.config …` in the checkout; what it prints."""
        environment = self.cluster.environment(PYTHONPATH=str(self.checkout), **variables)
        done = subprocess.run(
            ["pyflyte", "-c", str(self.cluster.config_file), *arguments],
            cwd=self.checkout,
            env=environment | {"PATH": f"{self.programs}:{environment['PATH']}"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        printed = done.stdout + done.stderr
        if code is not None:
            assert done.returncode == code, printed + self._logs()
        return printed

    def run(self, *arguments: str, code: int | None = 0) -> Execution:
        """`pyflyte run --remote --wait`, all code shipped; the execution that it was."""
        options = ("--remote", "--wait", "--poll-interval", "1", "--copy", "all")
        self.printed.append(self.pyflyte("run", *options, *arguments, code=code))
        return self.cluster.executions[-1]

    def typed(self, words: list[str], given: dict[str, str] | None = None) -> str:
        """One of README's commands with its blanks filled in; variables before it count, too."""
        place = words.index("pyflyte")
        assert words[place + 1 : place + 3] == ["-c", "flyte.config"]
        # the recipe that it names needs a GPU
        blanks = {"recipes/qwen2.5-0.5b.yaml": "recipes/small.yaml"} | (given or {})
        filled = [blanks.get(word, word) for word in words[place + 3 :]]
        variables = dict(word.split("=", 1) for word in words[:place])
        variables = {name: blanks.get(value, value) for name, value in variables.items()}
        return self.pyflyte(*filled, **variables)

    def run_as_written(self, words: list[str], given: dict[str, str] | None = None) -> Execution:
        """One of README's `run --remote`: it ships what it imports, the rest is in the image."""
        self.pods.image = True
        try:
            printed = self.typed(words, given)
            execution = self.cluster.executions[-1]
            assert execution.name in printed  # where to look at it
            assert execution.finished.wait(SECONDS)
        finally:
            self.pods.image = False
        return execution

    def _logs(self) -> str:
        newest = sorted(self.cluster.logs.iterdir(), key=lambda file: file.stat().st_mtime)[-2:]
        return "".join(f"\n--- {file.name}\n{file.read_text()[-3000:]}" for file in newest)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the loopback's own small workflows, as somebody's checkout."""
    folder = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tests" / "loopback" / "toy", folder / "toy", ignore=ignored)
    return folder


@pytest.fixture(scope="session")
def remote(
    tmp_path_factory: pytest.TempPathFactory,
    small_recipe: Callable[..., Recipe],
    code,
    forked: Path,
) -> Iterator[Remote]:
    folder = tmp_path_factory.mktemp("remote")
    checkout = folder / "checkout"
    checkout.mkdir()
    code(checkout, CODE)
    content = small_recipe(folder).model_dump(mode="json")
    content |= {"output_dir": "outputs", "tracking": {"experiment": "remote", "uri": None}}
    for part in ("vision", "language"):
        content["model"][part] = f"recipes/tiny_base/{part}"  # as it lies in the image
    with mlflow_server(folder / "mlflow") as uri:
        variables = {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        pods = ImagePods(checkout, ProcessPods(forked))
        place = folder / "cluster"
        with Cluster(images=IMAGES, variables=variables, folder=place, pods=pods) as cluster:
            small = Recipe.model_validate(content)
            made = Remote(cluster, checkout, uri, pods, small, str(forked))
            made.write("small.yaml")
            yield made


@pytest.fixture(scope="session")
def first(remote: Remote) -> Execution:
    """README's command of the pipeline, the first of all that runs the small recipe."""
    return remote.run_as_written(pipeline())
