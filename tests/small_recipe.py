"""The shipped tiny recipe at a few rows and steps: what tests of whole stages run."""

from pathlib import Path
from typing import Any

from siqvl.recipe import Recipe

ROOT = Path(__file__).parent.parent


def small_recipe(folder: Path, **sections: Any) -> Recipe:
    """It writes below a folder of the test's own; `sections` replace whole parts of it."""
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
        stage |= {"cached_features": False}
        for source in stage["sources"]:
            source["max_samples"] = 24
    content["stages"]["vqa_sft"]["sources"] = content["stages"]["vqa_sft"]["sources"][:1]
    content["stages"]["cot_sft"]["sources"] = content["stages"]["cot_sft"]["sources"][:2]
    content["stages"]["dpo"] |= {
        "sampled": None,
        "loss": {"sigmoid": 1.0},
        "batching": "grouped",
    }
    # two steps teach nothing that a gate could claim
    content["evaluation"] |= {
        "benchmarks": content["evaluation"]["benchmarks"][:1],
        "gates": [],
        "random_tower": False,
        "likelihood_control": False,
        "champion_benchmark": "vqa",
    }
    for benchmark in content["evaluation"]["benchmarks"]:
        benchmark["source"]["max_samples"] = 12
        benchmark["training"]["max_samples"] = 50
    content |= sections
    return Recipe.model_validate(content)
