"""The whole pipeline, started by the loopback cluster, each task in a container of the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from siqvl.recipe.compute import Kind
from tests.integration.image_checks.engine import Engine
from tests.integration.image_checks.facts import Fact
from tests.loopback.cluster import Cluster
from tests.loopback.pods import ContainerPods
from tests.loopback.records import Execution
from tests.loopback.tracking import mlflow_server
from tests.small_recipe import small_recipe

RECIPE = "recipes/image.yaml"


def run(engine: Engine, tag: str, context: Path, folder: Path) -> Fact:
    """Run `pyflyte run --remote --wait` in the checkout that the image was built from."""
    _write_recipe(context, folder)
    pods = ContainerPods(tag, engine.environment.get("DOCKER_HOST", ""), docker=engine.client)
    with mlflow_server(folder / "mlflow") as uri:
        variables = {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        images = {kind.value: tag for kind in Kind}
        place = folder / "cluster"
        with Cluster(images=images, variables=variables, folder=place, pods=pods) as cluster:
            printed = _client(cluster, context)
            execution = cluster.executions[-1]
    ended = [pod.exit_code for pod in execution.pods]
    value = f"{execution.state}, {len(ended)} containers, {execution.seconds:.0f} s"
    if not execution.succeeded:
        print(printed, *(pod.printed()[-2000:] for pod in execution.pods if pod.exit_code))
    whole = execution.succeeded and len(ended) == _tasks(execution) > 4 and not any(ended)
    return Fact("pipeline over the loopback cluster, in containers", value, whole)


def _tasks(execution: Execution) -> int:
    return sum(bool(node.task_name) for node in execution.nodes)


def _write_recipe(context: Path, folder: Path) -> None:
    content = small_recipe(folder).model_dump(mode="json")
    content |= {"output_dir": "outputs", "tracking": {"experiment": "image", "uri": None}}
    for part in ("vision", "language"):
        content["model"][part] = f"recipes/tiny_base/{part}"  # as it lies in the image
    (context / RECIPE).write_text(yaml.safe_dump(content))


def _client(cluster: Cluster, context: Path) -> str:
    pyflyte = str(Path(sys.executable).with_name("pyflyte"))
    done = subprocess.run(
        [
            *(pyflyte, "-c", str(cluster.config_file), "run", "--remote", "--wait"),
            *("--poll-interval", "1", "workflows/full_pipeline.py", "full_pipeline"),
            *("--recipe", RECIPE),
        ],
        cwd=context,
        env=cluster.environment(PYTHONPATH=str(context)),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr
