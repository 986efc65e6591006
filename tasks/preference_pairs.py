"""Preference pairs that the checkpoint DPO starts from writes itself: right against wrong answers.

pyflyte run tasks/preference_pairs.py preference_pairs --checkpoint DIR --data DIR --benchmarks DIR
"""

from __future__ import annotations

from typing import NamedTuple

from flytekit import task

from siqvl.check import check_sampled
from siqvl.preferences.pairs_page import PAGE
from siqvl.preferences.sample_pairs import SampledFolders, add_sampled_pairs
from siqvl.preferences.statistics import STATISTICS, Sampling
from siqvl.recipe import Recipe, Stage
from siqvl.recipe.compute import Kind
from siqvl.tracking.runs import RunLog
from tasks.contracts import ALONE, TINY, Checkpoint, PipelineRun, PreparedData, local, workspace
from tasks.decks import show
from tasks.resources import cached, policy
from tasks.tracked import tracked


class PreferencePairs(NamedTuple):
    """Rows to train on and rows to score, each with the pairs that were sampled."""

    data: PreparedData
    benchmarks: PreparedData


@task(**policy(Kind.EVALUATION), cache=cached(), enable_deck=True, deck_fields=())
def preference_pairs(
    checkpoint: Checkpoint,
    data: PreparedData,
    benchmarks: PreparedData,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
) -> PreferencePairs:
    """Add sampled pairs to the prepared `dpo` rows, and to the benchmarks that consist of them.

    What nothing is added to is handed on as it came.
    """
    check_sampled(recipe)
    if recipe.stages.dpo.sampled is None:
        return PreferencePairs(data=data, benchmarks=benchmarks)
    out = workspace(recipe, run) / "preference_pairs"
    scored = local(benchmarks)
    tags = {"siqvl.stage": Stage.DPO.value}
    with tracked(recipe, "preference pairs", run, tags) as log:
        folders = add_sampled_pairs(
            recipe, checkpoint=local(checkpoint), data=local(data), benchmarks=scored, out=out
        )
        _keep_reports(folders, log)
    return PreferencePairs(
        data=PreparedData(str(folders.data)),
        benchmarks=benchmarks
        if folders.benchmarks == scored
        else PreparedData(str(folders.benchmarks)),
    )


def _keep_reports(folders: SampledFolders, log: RunLog) -> None:
    """Statistics and small files of what was sampled, in its run; its pages as decks."""
    for folder in folders.sampled:
        log.metrics(Sampling.read(folder).metrics(folder.name))
        for name in ("manifest.json", "quarantine.jsonl", "report.html", STATISTICS, PAGE):
            log.artifact(folder / name, folder.name)
        show(f"sampled {folder.name}", folder / PAGE)
