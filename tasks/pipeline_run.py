"""The first step of a pipeline: judge its recipe, open its MLflow run.

It also hands the recipe to every step, each time with the hash of what that step depends on
(`tasks/cache_keys.py`). Flyte's cache looks at the hash in place of the recipe, so another
learning rate of stage 3 leaves the results of stages 1 and 2 as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

from flytekit import HashMethod, task

from siqvl.check import check_recipe
from siqvl.evaluation.control import control_recipe
from siqvl.recipe import Recipe, Stage
from siqvl.recipe.compute import Kind
from siqvl.tracking.environment import keep_origin
from siqvl.tracking.runs import start_run
from tasks.cache_keys import (
    look_again,
    prepared_benchmarks,
    prepared_rows,
    sampled_pairs,
    scored,
    trained,
)
from tasks.contracts import PipelineRun
from tasks.flyte_tags import flyte_tags
from tasks.resources import policy
from tasks.stopping import stoppable
from tasks.tracked import check_pod


def _of(key: Callable[..., str], stage: Stage) -> HashMethod:
    return HashMethod(partial(key, stage=stage))


class Opened(NamedTuple):
    """The MLflow parent run, and the recipe as each step's cache sees it."""

    run: PipelineRun
    benchmarks: Annotated[Recipe, HashMethod(prepared_benchmarks)]
    evaluation: Annotated[Recipe, HashMethod(scored)]
    pairs: Annotated[Recipe, HashMethod(sampled_pairs)]
    projector_alignment_data: Annotated[Recipe, _of(prepared_rows, Stage.PROJECTOR_ALIGNMENT)]
    projector_alignment: Annotated[Recipe, _of(trained, Stage.PROJECTOR_ALIGNMENT)]
    vqa_sft_data: Annotated[Recipe, _of(prepared_rows, Stage.VQA_SFT)]
    vqa_sft: Annotated[Recipe, _of(trained, Stage.VQA_SFT)]
    cot_sft_data: Annotated[Recipe, _of(prepared_rows, Stage.COT_SFT)]
    cot_sft: Annotated[Recipe, _of(trained, Stage.COT_SFT)]
    dpo_data: Annotated[Recipe, _of(prepared_rows, Stage.DPO)]
    dpo: Annotated[Recipe, _of(trained, Stage.DPO)]
    control: Annotated[Recipe, _of(trained, Stage.PROJECTOR_ALIGNMENT)]
    control_evaluation: Annotated[Recipe, HashMethod(scored)]


@task(**policy(Kind.DATA))
@stoppable()
def open_run(recipe: Recipe) -> Opened:
    """Judge the whole recipe, then open the parent run; nothing else starts before."""
    check_pod(recipe)
    check_recipe(recipe)
    look_again()
    start = time.strftime("%Y%m%d-%H%M%S")
    tags = {"siqvl.kind": "pipeline", **flyte_tags()}
    log = start_run(recipe, f"{recipe.name} {start}", tags=tags)
    log.params(recipe.model_dump(mode="json"))
    keep_origin(log, recipe)
    log.flush()
    # Two pipelines may start in the same second; their folders must differ.
    run = PipelineRun(name=f"{start}-{log.run_id[:4]}", run_id=log.run_id)
    control = control_recipe(recipe) if recipe.evaluation.random_tower else recipe
    seen: dict[str, Any] = dict.fromkeys(Opened._fields, recipe)
    seen |= {"run": run, "control": control, "control_evaluation": control}
    return Opened(**seen)
