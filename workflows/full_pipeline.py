"""The whole pipeline: data → align → VQA → chain of thought → DPO, scored after each stage.

pyflyte run workflows/full_pipeline.py full_pipeline
pyflyte run workflows/full_pipeline.py full_pipeline --recipe recipes/easyvqa.yaml

The same command again goes on where it was killed, or failed; with `--fresh` it begins anew.
"""

from __future__ import annotations

from typing import Any

from flytekit import dynamic, workflow

from siqvl.recipe import Recipe, Stage
from siqvl.recipe.compute import Kind
from tasks.contracts import TINY, Preparation
from tasks.cot_sft import cot_sft
from tasks.data_prep import data_prep
from tasks.dpo import dpo
from tasks.evaluation import evaluation
from tasks.pipeline_failure import close_run
from tasks.pipeline_report import pipeline_report
from tasks.pipeline_run import open_run
from tasks.preference_pairs import preference_pairs
from tasks.projector_alignment import projector_alignment
from tasks.promotion import PipelineResult, promotion
from tasks.resources import asked, planner
from tasks.rlvr import rlvr
from tasks.vqa_sft import vqa_sft
from workflows.evaluated import evaluated
from workflows.prepared_data import prepared_data

TRAINING = {
    Stage.PROJECTOR_ALIGNMENT: projector_alignment,
    Stage.VQA_SFT: vqa_sft,
    Stage.COT_SFT: cot_sft,
    Stage.DPO: dpo,
    Stage.RLVR: rlvr,
}


@workflow(on_failure=close_run)
def full_pipeline(recipe: Recipe = TINY, fresh: bool = False) -> PipelineResult:
    """Train and score all four stages of a recipe, and promote the last if its gates pass."""
    checkpoint, report, mlflow_run = all_stages(recipe=recipe, fresh=fresh)
    return PipelineResult(checkpoint=checkpoint, report=report, mlflow_run=mlflow_run)


@dynamic(**planner())
def all_stages(recipe: Recipe, fresh: bool = False) -> PipelineResult:
    """The tasks of one recipe, which says what each of them asks of the cluster."""
    steps = Steps(recipe, fresh)
    opened, benchmarks = steps.opened, steps.benchmarks

    data = steps.prepared(Stage.PROJECTOR_ALIGNMENT)
    aligned = steps.trained(Stage.PROJECTOR_ALIGNMENT, data)
    aligned_report = steps.scored(aligned, benchmarks)
    controls = steps.controlled(Stage.PROJECTOR_ALIGNMENT, data, benchmarks)

    answering = steps.trained(Stage.VQA_SFT, steps.prepared(Stage.VQA_SFT), aligned)
    answering_report = steps.scored(answering, benchmarks)

    reasoning = steps.trained(Stage.COT_SFT, steps.prepared(Stage.COT_SFT), answering)

    # The pairs are both learnt from and scored: before and after, on the same held-out ones.
    data, benchmarks = steps.with_pairs(reasoning, steps.prepared(Stage.DPO))
    reasoning_report = steps.scored(reasoning, benchmarks)
    preferring = steps.trained(Stage.DPO, data, reasoning)
    preferring_report = steps.scored(preferring, benchmarks)
    controls += steps.controlled(Stage.DPO, data, benchmarks, reasoning)

    report = steps.on(
        Kind.DATA,
        pipeline_report(
            recipe=recipe,
            run=opened.run,
            checkpoints=[aligned, answering, reasoning, preferring],
            reports=[aligned_report, answering_report, reasoning_report, preferring_report],
            controls=controls,
            benchmarks=benchmarks,
        ),
    )
    return steps.on(
        Kind.DATA,
        promotion(
            recipe=recipe,
            run=opened.run,
            checkpoint=preferring,
            scores=preferring_report,
            report=report,
        ),
    )


class Steps:
    """Nodes of a pipeline, each with what the recipe asks of the cluster.

    A task gets the recipe from `open_run`, with the hash that its cache goes by.
    """

    def __init__(self, recipe: Recipe, fresh: bool) -> None:
        self.recipe = recipe
        self.opened = self.on(Kind.DATA, open_run(recipe=recipe, fresh=fresh))
        self.benchmarks = self.on(
            Kind.DATA,
            data_prep(
                stage=Preparation.EVALUATION, recipe=self.opened.benchmarks, run=self.opened.run
            ),
        )

    def on(self, kind: Kind, node: Any) -> Any:
        return node.with_overrides(**asked(kind, self.recipe))

    def prepared(self, stage: Stage) -> Any:
        inputs = {
            "stage": Preparation(stage.value),
            "recipe": getattr(self.opened, f"{stage.value}_data"),
            "run": self.opened.run,
            "benchmarks": self.benchmarks,
        }
        if self.recipe.data.shards > 1:
            return prepared_data(**inputs)
        return self.on(Kind.DATA, data_prep(**inputs))

    def trained(
        self, stage: Stage, data: Any, checkpoint: Any = None, *, as_seen: Any = None
    ) -> Any:
        inputs = {
            "data": data,
            "recipe": getattr(self.opened, stage.value) if as_seen is None else as_seen,
            "run": self.opened.run,
        }
        if checkpoint is not None:
            inputs["checkpoint"] = checkpoint
        if not self.recipe.distributed.several:
            return self.on(Kind.TRAINING, TRAINING[stage](**inputs))
        from tasks.elastic_training import elastic_training  # imports torch

        elastic = elastic_training.shaped(self.recipe.distributed)
        return self.on(Kind.TRAINING, elastic(stage=stage, **inputs))

    def controlled(
        self, stage: Stage, data: Any, benchmarks: Any, checkpoint: Any = None
    ) -> list[Any]:
        """The scores of a stage's control, where the recipe asks for it."""
        found = []
        for control in self.recipe.evaluation.controls:
            if control.stage is stage:
                as_seen = getattr(self.opened, control.value)
                model = self.trained(stage, data, checkpoint, as_seen=as_seen)
                as_seen = getattr(self.opened, f"{control}_evaluation")
                found.append(self.scored(model, benchmarks, as_seen=as_seen))
        return found

    def with_pairs(self, checkpoint: Any, data: Any) -> tuple[Any, Any]:
        """Training pairs and benchmarks, with those that a checkpoint writes itself."""
        if self.recipe.stages.dpo.sampled is None:
            return data, self.benchmarks
        pairs = preference_pairs(
            checkpoint=checkpoint,
            data=data,
            benchmarks=self.benchmarks,
            recipe=self.opened.pairs,
            run=self.opened.run,
        )
        return tuple(self.on(Kind.EVALUATION, pairs))

    def scored(self, checkpoint: Any, benchmarks: Any, *, as_seen: Any = None) -> Any:
        inputs = {
            "checkpoint": checkpoint,
            "data": benchmarks,
            "recipe": self.opened.evaluation if as_seen is None else as_seen,
            "run": self.opened.run,
        }
        if self.recipe.evaluation.shards > 1:
            return evaluated(**inputs)
        return self.on(Kind.EVALUATION, evaluation(**inputs))
