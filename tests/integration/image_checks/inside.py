"""Two tasks of the pipeline, run inside the image under the restrictions of a strict cluster."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.integration.image_checks.engine import Engine

WORK = "/work"
#: Nothing to reach, no privilege to have or to gain, and bounds on what may be used.
RESTRICTED = (
    *("--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--tmpfs", "/tmp", "--pids-limit", "256", "--memory", "6g"),
)
ENVIRONMENT = {
    "MLFLOW_TRACKING_URI": f"sqlite:///{WORK}/mlflow.db",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass
class Box:
    """Starts containers of one image that share a mounted folder."""

    engine: Engine
    image: str
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, name: str, *command: str, code_writable: bool = False, cwd: str = WORK) -> str:
        """Run one command to its end; its output is also in the folder, as `<name>.log`.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        options = [*RESTRICTED, *([] if code_writable else ["--read-only"])]
        values = [part for item in self._environment().items() for part in ("-e", "=".join(item))]
        started = time.monotonic()
        try:
            return self.engine.call(
                *("run", "--rm", *options, *values, "-v", f"{self.folder}:{WORK}", "-w", cwd),
                *(self.image, *command),
                log=self.folder / f"{name}.log",
            )
        finally:
            self.seconds[name] = time.monotonic() - started

    def _environment(self) -> dict[str, str]:
        return ENVIRONMENT


class Pods(Box):
    """The same with what Flyte tells a pod."""

    def _environment(self) -> dict[str, str]:
        execution = {"ID": "image", "PROJECT": "siqvl", "DOMAIN": "test"}
        internal = {f"FLYTE_INTERNAL_EXECUTION_{name}": value for name, value in execution.items()}
        return ENVIRONMENT | internal


def small_recipe(folder: Path) -> Path:
    """A few rows and steps of the tiny recipe, which write below the mounted folder."""
    content = {
        "base": "/root/recipes/tiny.yaml",
        "name": "image",
        "output_dir": f"{WORK}/outputs",
        "model": {part: f"/root/recipes/tiny_base/{part}" for part in ("vision", "language")},
        "stages": {
            "projector_alignment": {
                "sources": [{"kind": "shapes", "subsets": ["captions"], "max_samples": 64}],
                "max_steps": 3,
                "batch_size": 8,
                "logging_steps": 1,
            }
        },
        "tracking": {"experiment": "image", "uri": ENVIRONMENT["MLFLOW_TRACKING_URI"]},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def user_of(box: Box) -> str:
    """Who commands run as."""
    return box.run("user", "id", "-u")


def run_stage(box: Box) -> str:
    """Prepare data and train stage 1 with `pyflyte run`; return the code its checkpoint names."""
    recipe = ("--recipe", f"{WORK}/recipe.yaml")
    stage = "projector_alignment"
    prepare = ("pyflyte", "run", "/root/tasks/data_prep.py", "data_prep", *recipe)
    box.run("data_prep", *prepare, "--stage", stage)
    single = f"outputs/image/single/{{}}/{stage}"
    train = ("pyflyte", "run", f"/root/tasks/{stage}.py", stage, *recipe)
    box.run(stage, *train, "--data", f"{WORK}/{single.format('data')}")
    return code_of(box.folder / single.format("checkpoints"))


def code_of(checkpoint: Path) -> str:
    """The code version in a checkpoint's card."""
    return json.loads((checkpoint / "siqvl.json").read_text())["code_version"]
