"""Data preparation: published rows in, checked parquet shards out.

pyflyte run tasks/data_prep.py data_prep --stage vqa_sft --recipe recipes/tiny.yaml
"""

from __future__ import annotations

from flytekit import task

from siqvl.data.prepare import prepare
from siqvl.evaluation.benchmarks import prepare_benchmarks
from siqvl.recipe import Recipe, Stage
from siqvl.tracking.runs import stage_run
from siqvl.training.stages import STAGES
from tasks.contracts import ALONE, TINY, PipelineRun, Preparation, PreparedData, workspace
from tasks.resources import light


@task(**light())
def data_prep(stage: Preparation, recipe: Recipe = TINY, run: PipelineRun = ALONE) -> PreparedData:
    """Prepare the rows of one training stage, or with `evaluation` every benchmark."""
    out = workspace(recipe, run) / "data" / stage.value
    name = f"{stage.value} data"
    with stage_run(recipe, name, run.parent, {"siqvl.stage": stage.value}) as log:
        if stage is Preparation.EVALUATION:
            prepare_benchmarks(recipe, out)
        else:
            trained = Stage(stage.value)
            sources, rows = recipe.stage(trained).sources, STAGES[trained].rows
            prepare(sources, rows, out, data=recipe.data, seed=recipe.seed)
        for manifest in sorted(out.rglob("manifest.json")):
            folder = manifest.parent
            for name in ("manifest.json", "quarantine.jsonl", "report.html"):
                log.artifact(folder / name, str(folder.relative_to(out.parent)))
    return PreparedData(str(out))
