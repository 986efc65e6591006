"""What a cluster costs: the pipeline run here, and the same through a Flyte cluster on loopback.

python -m benchmarks.remote [--recipe recipes/tiny.yaml]

Four runs, one after the other: here; as `pyflyte run --remote --wait` with an empty cache; again;
and with another learning rate in stage 3. The cluster is the test double of `tests/loopback` on
this machine, one pod at a time: measured is starting processes, handing artifacts over through a
blob store, and logging to a real MLflow server, not a network or a scheduler.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import NamedTuple

import yaml

from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from siqvl.text_table import text_table
from tests.loopback.cluster import Cluster
from tests.loopback.records import Execution
from tests.loopback.tracking import mlflow_server

ROOT = Path(__file__).parent.parent
PIPELINE = ("workflows/full_pipeline.py", "full_pipeline")
HANDED_ON = ("OMP_NUM_THREADS", "HF_HUB_OFFLINE")


class Run(NamedTuple):
    """One run of the pipeline."""

    name: str
    seconds: float
    code: int  # of the client; a gate that fails is one, too
    execution: Execution | None = None

    def line(self, base: float) -> tuple[str, ...]:
        ran, hits, inside = "–", "–", "–"
        if self.execution is not None:
            nodes = [node for node in self.execution.nodes if node.task_name]
            counts = Counter(node.cached for node in nodes)
            ran, hits = str(counts[False]), str(counts[True])
            inside = f"{sum(pod.seconds for pod in self.execution.pods):.0f} s"
        return (
            self.name,
            f"{self.seconds:.0f} s",
            f"{self.seconds / base:.2f}",
            ran,
            hits,
            inside,
            "ok" if self.code == 0 else f"exit {self.code}",
        )


def here(recipe: Path, folder: Path) -> Run:
    """The pipeline in one process, with its own store."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/here.db"}
    command = [_pyflyte(), "run", *PIPELINE, "--recipe", str(recipe)]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    return Run("here, one process", time.monotonic() - start, done.returncode)


def remote(cluster: Cluster, name: str, recipe: Path) -> Run:
    """The same through the client and the cluster."""
    options = ("--remote", "--wait", "--poll-interval", "1", "--copy", "all")
    command = [_pyflyte(), "-c", str(cluster.config_file), "run", *options]
    start = time.monotonic()
    done = subprocess.run(
        [*command, *PIPELINE, "--recipe", str(recipe)],
        cwd=ROOT,
        env=cluster.environment(),
        check=False,
    )
    seconds = time.monotonic() - start
    return Run(name, seconds, done.returncode, cluster.executions[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "tiny.yaml")
    recipe: Path = parser.parse_args().recipe
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plain, changed = _recipes(recipe, folder)
        runs = [here(plain, folder)]
        with mlflow_server(folder / "mlflow") as uri:
            variables = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
            variables["MLFLOW_TRACKING_URI"] = uri
            images = {kind.value: "siqvl:loopback" for kind in Kind}
            with Cluster(images=images, variables=variables, folder=folder / "c") as cluster:
                runs += [
                    remote(cluster, "remote, empty cache", plain),
                    remote(cluster, "remote again", plain),
                    remote(cluster, "remote, other rate in stage 3", changed),
                ]
    _print(recipe, runs)
    sys.exit(max(abs(run.code) for run in runs))


def _recipes(recipe: Path, folder: Path) -> tuple[Path, Path]:
    """The recipe with results kept in `folder`, and one with another rate in stage 3."""
    content = Recipe.load(recipe).model_dump(mode="json")
    content["output_dir"] = str(folder / "outputs")
    content["tracking"]["uri"] = None
    written = []
    for name, factor in (("plain", 1.0), ("changed", 0.9)):
        content["stages"]["cot_sft"]["learning_rate"] *= factor
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        written.append(path)
    return written[0], written[1]


def _pyflyte() -> str:
    return str(Path(sys.executable).with_name("pyflyte"))


def _print(recipe: Path, runs: list[Run]) -> None:
    head = ("run", "wall time", "ratio", "tasks run", "from cache", "in pods", "client")
    rows = [head, *(run.line(runs[0].seconds) for run in runs)]
    print(f"\n{recipe.name}, {date.today()}, {platform.machine()}, {os.cpu_count()} cores")
    print("\n".join(text_table(rows, left=(0,))))


if __name__ == "__main__":
    main()
