"""What every test shares: no hub, few threads, real data only where it was offered."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Before torch or transformers are imported anywhere: two cores, and nothing to download.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from siqvl.recipe import Recipe

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of published data, named by SIQVL_REAL_DATA."""
    folder = os.environ.get("SIQVL_REAL_DATA")
    if not folder:
        pytest.skip("SIQVL_REAL_DATA is not set: published data is not in the repository")
    return Path(folder)


@pytest.fixture(scope="session")
def small_recipe() -> Callable[..., Recipe]:
    """The shipped tiny recipe at a few rows and steps, writing below a folder of the test's own."""

    def build(folder: Path, **sections: Any) -> Recipe:
        content = Recipe.load(ROOT / "recipes" / "tiny.yaml").model_dump(mode="json")
        content["output_dir"] = str(folder / "outputs")
        content["tracking"] = {
            "experiment": "test",
            "uri": f"sqlite:///{folder}/mlflow.db",
        }
        for part in ("vision", "language"):
            content["model"][part] = str(ROOT / "recipes" / "tiny_base" / part)
        for stage in content["stages"].values():
            stage |= {"max_steps": 2, "batch_size": 4, "logging_steps": 1, "precision": "fp32"}
            for source in stage["sources"]:
                source["max_samples"] = 24
        content["evaluation"]["benchmarks"] = content["evaluation"]["benchmarks"][:1]
        for benchmark in content["evaluation"]["benchmarks"]:
            benchmark["source"]["max_samples"] = 12
            benchmark["training"]["max_samples"] = 50
        content |= sections
        return Recipe.model_validate(content)

    return build
