"""The whole pipeline: data → align → VQA → chain of thought → DPO, scored after each stage.

pyflyte run workflows/full_pipeline.py full_pipeline
pyflyte run workflows/full_pipeline.py full_pipeline --recipe recipes/easyvqa.yaml
"""

from __future__ import annotations

from flytekit import workflow

from siqvl.recipe import Recipe
from tasks.contracts import TINY, Preparation
from tasks.cot_sft import cot_sft
from tasks.data_prep import data_prep
from tasks.dpo import dpo
from tasks.evaluation import evaluation
from tasks.pipeline_run import PipelineResult, close_run, open_run
from tasks.projector_alignment import projector_alignment
from tasks.vqa_sft import vqa_sft
from workflows.prepared_data import prepared_data


@workflow
def full_pipeline(recipe: Recipe = TINY) -> PipelineResult:
    """Train and score all four stages of a recipe."""
    run = open_run(recipe=recipe)
    benchmarks = data_prep(stage=Preparation.EVALUATION, recipe=recipe, run=run)

    stage = Preparation.PROJECTOR_ALIGNMENT
    data = prepared_data(stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
    aligned = projector_alignment(data=data, recipe=recipe, run=run)
    aligned_report = evaluation(checkpoint=aligned, data=benchmarks, recipe=recipe, run=run)

    stage = Preparation.VQA_SFT
    data = prepared_data(stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
    answering = vqa_sft(checkpoint=aligned, data=data, recipe=recipe, run=run)
    answering_report = evaluation(checkpoint=answering, data=benchmarks, recipe=recipe, run=run)

    stage = Preparation.COT_SFT
    data = prepared_data(stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
    reasoning = cot_sft(checkpoint=answering, data=data, recipe=recipe, run=run)
    reasoning_report = evaluation(checkpoint=reasoning, data=benchmarks, recipe=recipe, run=run)

    stage = Preparation.DPO
    data = prepared_data(stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
    preferring = dpo(checkpoint=reasoning, data=data, recipe=recipe, run=run)
    preferring_report = evaluation(checkpoint=preferring, data=benchmarks, recipe=recipe, run=run)

    return close_run(
        recipe=recipe,
        run=run,
        checkpoint=preferring,
        reports=[aligned_report, answering_report, reasoning_report, preferring_report],
    )
