"""The tasks and the pipeline on Flyte 2's SDK, through flyte-migrate, in an environment of its own.

On one machine: there is no control plane of Flyte 2 here, and flytekit is no client of one.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from siqvl.checkpoint import CheckpointCard
from siqvl.evaluation.scoring.scores import Scores
from siqvl.recipe import PIPELINE, Stage
from siqvl.tracking.runs import client

ROOT = Path(__file__).parents[2]
PACKAGES = ("flyte==2.12.1", "flyte-migrate==0.0.3")

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def migrate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pyflyte-migrate`, over the packages that are installed here; no test if it cannot be."""
    folder = tmp_path_factory.mktemp("flyte-2")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    purelib = [sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = subprocess.run([python, *purelib[1:]], capture_output=True, text=True, check=True)
    here = "\n".join(path for path in site.getsitepackages() if Path(path).is_dir())
    Path(own.stdout.strip(), "here.pth").write_text(here)
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        lines = installed.stderr.strip().splitlines() or ["pip says nothing"]
        pytest.skip(f"{' '.join(PACKAGES)} cannot be installed: {lines[-1]}")
    return folder / "bin" / "pyflyte-migrate"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, small_recipe, code) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    code(folder, ("siqvl", "tasks", "workflows", "recipes", "flyte.config"))
    tracking = {"experiment": "flyte 2", "uri": f"sqlite:///{folder}/mlflow.db"}
    content = small_recipe(folder, tracking=tracking).model_dump(mode="json")
    content["output_dir"] = "outputs"
    (folder / "recipes" / "small.yaml").write_text(yaml.safe_dump(content))
    return folder


def run(migrate: Path, checkout: Path, *arguments: str) -> str:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLYTE", "MLFLOW", "PYTEST", "_F_"))
    }
    done = subprocess.run(
        [migrate, "run", *arguments, "--recipe", "recipes/small.yaml"],
        cwd=checkout,
        env=kept | {"HOME": str(checkout), "PYTHONPATH": str(checkout), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_task_runs_by_itself(migrate: Path, checkout: Path) -> None:
    run(migrate, checkout, "tasks/data_prep.py", "data_prep", "--stage", "projector_alignment")
    (manifest,) = (checkout / "outputs").glob("*/single/data/projector_alignment/manifest.json")
    assert manifest.is_file()


def test_the_pipeline_runs_through_all_stages(migrate: Path, checkout: Path) -> None:
    run(migrate, checkout, "workflows/full_pipeline.py", "full_pipeline")
    (report,) = (checkout / "outputs").glob("*/*/report/gates.json")
    folder = report.parent.parent
    cards = [
        CheckpointCard.model_validate_json(
            (folder / "checkpoints" / stage.value / "siqvl.json").read_text()
        )
        for stage in PIPELINE
    ]
    assert [card.stage for card in cards] == list(PIPELINE)
    assert len([Scores.read(one.parent) for one in folder.rglob("scores.json")]) >= len(PIPELINE)
    store = client(f"sqlite:///{checkout}/mlflow.db")
    experiment = store.get_experiment_by_name("flyte 2")
    runs = store.search_runs([experiment.experiment_id])
    (pipeline,) = [one for one in runs if one.data.tags.get("siqvl.kind") == "pipeline"]
    assert pipeline.info.status == "FINISHED"
    assert {one.info.status for one in runs} == {"FINISHED"}
    assert Stage.DPO.value in {one.info.run_name for one in runs}
