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
from tasks.pipeline_report import pipeline_report
from tasks.pipeline_run import open_run
from tasks.preference_pairs import preference_pairs
from tasks.projector_alignment import projector_alignment
from tasks.promotion import PipelineResult, promotion
from tasks.vqa_sft import vqa_sft
from workflows.evaluated import evaluated
from workflows.prepared_data import prepared_data
from workflows.random_tower import random_tower


@workflow
def full_pipeline(recipe: Recipe = TINY) -> PipelineResult:
    """Train and score all four stages of a recipe, and promote the last if its gates pass."""
    run = open_run(recipe=recipe)
    benchmarks = data_prep(stage=Preparation.EVALUATION, recipe=recipe, run=run)

    stage = Preparation.PROJECTOR_ALIGNMENT
    data = prepared_data(stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
    aligned = projector_alignment(data=data, recipe=recipe, run=run)
    aligned_report = evaluated(checkpoint=aligned, data=benchmarks, recipe=recipe, run=run)
    control = random_tower(data=data, benchmarks=benchmarks, recipe=recipe, run=run)

    stage = Preparation.VQA_SFT
    data = prepared_data(stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
    answering = vqa_sft(checkpoint=aligned, data=data, recipe=recipe, run=run)
    answering_report = evaluated(checkpoint=answering, data=benchmarks, recipe=recipe, run=run)

    stage = Preparation.COT_SFT
    data = prepared_data(stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
    reasoning = cot_sft(checkpoint=answering, data=data, recipe=recipe, run=run)

    # The pairs are both learnt from and scored: before and after, on the same held-out ones.
    stage = Preparation.DPO
    data = prepared_data(stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
    pairs = preference_pairs(
        checkpoint=reasoning, data=data, benchmarks=benchmarks, recipe=recipe, run=run
    )
    scored = pairs.benchmarks
    reasoning_report = evaluated(checkpoint=reasoning, data=scored, recipe=recipe, run=run)
    preferring = dpo(checkpoint=reasoning, data=pairs.data, recipe=recipe, run=run)
    preferring_report = evaluated(checkpoint=preferring, data=scored, recipe=recipe, run=run)

    report = pipeline_report(
        recipe=recipe,
        run=run,
        checkpoints=[aligned, answering, reasoning, preferring],
        reports=[aligned_report, answering_report, reasoning_report, preferring_report],
        control=control,
        benchmarks=scored,
    )
    return promotion(recipe=recipe, run=run, checkpoint=preferring, report=report)
