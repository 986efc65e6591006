"""What a pod costs: a small pipeline in one process and in pods, of two builds, in turns.

python -m benchmarks.pods --against CHECKOUT [--repeats 1] [--json FILE]

The recipe is each build's own tiny one at two steps a stage, a few dozen rows and one benchmark, so
that next to nothing is computed: four stages and their evaluations, in one process by `pyflyte
run`, and in 17 pods or fewer by `pyflyte run --remote` on the loopback cluster (`tests/loopback`),
which starts each pod as a process of its own, one at a time, with nothing imported. Both log to a
real MLflow server.

What pods cost is what they take beyond the run in one process: seconds, which depend on what else a
machine does, and CPU seconds, of the client and of all pods with what they started, which hardly
do. Servers are not among them. A task's own line is its pod beside the same task in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from siqvl.recipe.compute import Kind
from siqvl.text_table import text_table
from tests.loopback.cluster import Cluster
from tests.loopback.image_pods import ImagePods
from tests.loopback.pods import ProcessPods
from tests.loopback.records import Execution
from tests.loopback.tracking import mlflow_server

ROOT = Path(__file__).parents[1]
PIPELINE = ("workflows/full_pipeline.py", "full_pipeline")
THREADS = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
CARD = "siqvl.json"
SECONDS = 1800

#: `pyflyte` in one process, which writes what each task took beyond the tasks inside of it.
TIMED = """\
import json, os, sys, time
from flytekit.clis.sdk_in_container.pyflyte import main
from flytekit.core.base_task import PythonTask

dispatched, inside = PythonTask.dispatch_execute, []

def now():
    return time.monotonic(), sum(os.times()[:4])

def timed(task, *args, **named):
    inside.append([0.0, 0.0])
    begin = now()
    try:
        return dispatched(task, *args, **named)
    finally:
        took = [end - start for end, start in zip(now(), begin)]
        own = [whole - part for whole, part in zip(took, inside.pop())]
        if inside:
            inside[-1] = [a + b for a, b in zip(inside[-1], took)]
        with open(os.environ["TIMED"], "a") as file:
            print(json.dumps([task.name, *own]), file=file)

PythonTask.dispatch_execute = timed
sys.argv[0] = "pyflyte"
main()
"""


@dataclass
class Taken:
    """What one run of the pipeline took."""

    seconds: float = 0.0
    cpu: float = 0.0
    weights: str = ""  # hash of the last checkpoint
    tasks: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # seconds and CPU

    def of_task(self, name: str) -> float:
        """CPU seconds of one run of a task."""
        return statistics.mean(cpu for _, cpu in self.tasks[name])


@dataclass
class Turn:
    """A build's two runs."""

    one: Taken
    pods: Taken

    def more(self, figure: str) -> float:
        """What pods take beyond one process."""
        return float(getattr(self.pods, figure) - getattr(self.one, figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    builds = {"old": options.against.resolve(), "now": ROOT}
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, flytekit "
        f"{version('flytekit')}, mlflow {version('mlflow')}, torch {version('torch')}; "
        + ", ".join(f"{name} {_commit(build)}" for name, build in builds.items()),
        flush=True,
    )
    for build in builds.values():  # so that nobody is the first to read the libraries from disk
        command = [_pyflyte(), "run", *PIPELINE, "--help"]
        _run([sys.executable, "-c", "import datasets, mlflow, torch.utils.data, s3fs"], build, {})
        _run(command, build, {})
    turns: dict[str, list[Turn]] = {name: [] for name in builds}
    with tempfile.TemporaryDirectory() as scratch, mlflow_server(Path(scratch) / "mlflow") as uri:
        for number in range(options.repeats):
            for name, build in builds.items():
                folder = Path(scratch) / f"{name}-{number}"
                folder.mkdir()
                turn = Turn(in_one_process(build, folder, uri), in_pods(build, folder, uri))
                turns[name].append(turn)
                print(_line(name, turn), flush=True)
                if turn.one.weights != turn.pods.weights:
                    sys.exit(f"{name}: pods come to other weights than one process")
    _print(turns)
    if options.json:
        found = {name: [asdict(turn) for turn in both] for name, both in turns.items()}
        options.json.write_text(json.dumps(found, indent=1))


def in_one_process(build: Path, folder: Path, uri: str) -> Taken:
    """The pipeline by `pyflyte run`."""
    recipe, times = _recipe(build, folder, "one"), folder / "times"
    command = [sys.executable, "-c", TIMED, "run", *PIPELINE, "--recipe", str(recipe)]
    with _timed() as taken:
        _run(command, build, {"MLFLOW_TRACKING_URI": uri, "TIMED": str(times)})
    found = defaultdict(list)
    for line in times.read_text().splitlines():
        name, *took = json.loads(line)
        found[name].append(tuple(took))
    (card,) = folder.glob(f"one/*/*/checkpoints/dpo/{CARD}")
    taken.tasks, taken.weights = dict(found), json.loads(card.read_text())["hash"]
    return taken


def in_pods(build: Path, folder: Path, uri: str) -> Taken:
    """The pipeline by `pyflyte run --remote`, with an empty cache."""
    recipe = _recipe(build, folder, "pods")
    variables = {"MLFLOW_TRACKING_URI": uri, **THREADS}
    images = {kind.value: "registry/siqvl:loopback" for kind in Kind}
    pods, place = ImagePods(build, ProcessPods()), folder / "cluster"
    with Cluster(images=images, variables=variables, folder=place, pods=pods) as cluster:
        options = ("--remote", "--wait", "--poll-interval", "1", "--copy", "all")
        command = [_pyflyte(), "-c", str(cluster.config_file), "run", *options, *PIPELINE]
        with _timed() as taken:
            own = cluster.environment()
            _run([*command, "--recipe", str(recipe)], build, own, cluster.logs)
        (execution,) = cluster.executions
        found = defaultdict(list)
        for pod in cluster.pods:
            found[pod.task].append((pod.seconds, pod.cpu_seconds))
        taken.tasks = dict(found)
        taken.weights = _hash_of(execution, cluster.store.get)
    return taken


def _hash_of(execution: Execution, get: Callable[[str], bytes | None]) -> str:
    address = execution.outputs.literals["checkpoint"].scalar.blob.uri
    return str(json.loads(get(f"{address.rstrip('/')}/{CARD}") or b"")["hash"])


def _recipe(build: Path, folder: Path, name: str) -> Path:
    """A build's tiny recipe at a few rows and steps; each run has an experiment of its own."""
    content: dict[str, Any] = yaml.safe_load((build / "recipes" / "tiny.yaml").read_text())
    content["output_dir"] = str(folder / name)
    content["tracking"] |= {"experiment": f"{folder.name} {name}", "uri": None}
    content["tracking"]["model_name"] = f"{folder.name}-{name}"
    for stage in content["stages"].values():
        stage |= {"max_steps": 2, "batch_size": 4, "logging_steps": 1, "precision": "fp32"}
        stage["cached_features"] = False
        del stage["sources"][2:]
        for source in stage["sources"]:
            source["max_samples"] = 24
    del content["stages"]["vqa_sft"]["sources"][1:]
    content["stages"]["dpo"] |= {"sampled": None, "loss": {"sigmoid": 1.0}}
    evaluation = content["evaluation"]
    controls = {key: False for key in ("random_tower", "likelihood_control") if key in evaluation}
    del evaluation["benchmarks"][1:]
    evaluation |= {"gates": [], "champion_benchmark": "vqa", **controls}
    evaluation["benchmarks"][0]["source"]["max_samples"] = 12
    evaluation["benchmarks"][0]["training"]["max_samples"] = 50
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@contextmanager
def _timed() -> Iterator[Taken]:
    """What passes until the end of the block, and what the processes that end in it took."""
    taken = Taken()
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    yield taken
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken.seconds = time.monotonic() - begin
    taken.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _run(
    command: list[str], build: Path, variables: dict[str, str], logs: Path | None = None
) -> None:
    """Run a program of a build, which has to succeed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    done = subprocess.run(
        command,
        cwd=build,
        env=inherited | THREADS | variables | {"PYTHONPATH": str(build)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        newest = sorted(logs.iterdir(), key=lambda path: path.stat().st_mtime)[-1:] if logs else []
        printed = "".join(path.read_text(errors="replace")[-4000:] for path in newest)
        sys.exit(f"{done.stdout}{done.stderr}{printed}")


def _pyflyte() -> str:
    return str(Path(sys.executable).with_name("pyflyte"))


def _commit(build: Path) -> str:
    command = ["git", "-C", str(build), "describe", "--always", "--dirty", "--abbrev=7"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _line(name: str, turn: Turn) -> str:
    sides = {"one process": turn.one, "pods": turn.pods}
    said = [f"{side} {took.seconds:.1f} s, {took.cpu:.1f} CPU" for side, took in sides.items()]
    number = sum(map(len, turn.pods.tasks.values()))
    return f"{name}: {'; '.join(said)} in {number} pods, weights {turn.pods.weights[:12]}"


def _print(turns: dict[str, list[Turn]]) -> None:
    rows = [
        ("CPU seconds", "pods", "old: pod", "here", "more", "now: pod", "here", "more", "ratio")
    ]
    names = dict.fromkeys(name for both in turns.values() for name in both[-1].pods.tasks)
    rows += [_row(name, turns) for name in names]
    print("\n" + "\n".join(text_table(rows, left=(0,))) + "\n")
    head = ("all", "old: one process", "pods", "more", "now: one process", "pods", "more", "ratio")
    rows = [head]
    for figure, unit in (("cpu", "CPU seconds"), ("seconds", "seconds")):
        cells: list[str] = []
        for both in turns.values():
            sides = [_median(getattr(turn.one, figure) for turn in both)]
            sides += [_median(getattr(turn.pods, figure) for turn in both)]
            cells += [f"{side:.1f}" for side in (*sides, sides[1] - sides[0])]
        pairs = zip(turns["now"], turns["old"], strict=True)
        ratio = _median(now.more(figure) / old.more(figure) for now, old in pairs)
        rows.append((unit, *cells, f"{ratio:.2f}"))
    print("\n".join(text_table(rows, left=(0,))))


def _row(name: str, turns: dict[str, list[Turn]]) -> tuple[str, ...]:
    """What a task takes in a pod and here, of each build; a build may not have it."""
    cells: list[str] = []
    more = {}
    pods = 0
    for build, both in turns.items():
        if name not in both[-1].pods.tasks:
            cells += ["–"] * 3
            continue
        pods = len(both[-1].pods.tasks[name])
        pod = _median(turn.pods.of_task(name) for turn in both)
        here = _median(turn.one.of_task(name) for turn in both)
        more[build] = pod - here
        cells += [f"{pod:.1f}", f"{here:.1f}", f"{pod - here:.1f}"]
    ratio = f"{more['now'] / more['old']:.2f}" if len(more) == 2 else "–"
    return name.rpartition(".")[2], str(pods), *cells, ratio


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
