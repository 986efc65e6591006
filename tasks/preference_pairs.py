"""Preference pairs that the checkpoint DPO starts from writes itself: right against wrong answers.

pyflyte run tasks/preference_pairs.py preference_pairs --checkpoint DIR --data DIR --benchmarks DIR
"""

from __future__ import annotations

from typing import NamedTuple

from flytekit import task

from siqvl.check import check_sampled
from siqvl.preferences.pairs_page import PAGE
from siqvl.preferences.sample_pairs import SampledFolders, add_sampled_pairs, sampled_folders
from siqvl.preferences.statistics import STATISTICS, Sampling
from siqvl.recipe import Recipe, Stage
from siqvl.recipe.compute import Kind
from siqvl.tracking.runs import RunLog
from tasks.contracts import ALONE, TINY, Checkpoint, PipelineRun, PreparedData, local, workspace
from tasks.decks import show
from tasks.given import begun
from tasks.once import once
from tasks.resources import cached, policy


class PreferencePairs(NamedTuple):
    """Rows to train on and rows to score, each with the pairs that were sampled."""

    data: PreparedData
    benchmarks: PreparedData


@task(**policy(Kind.EVALUATION), cache=cached(), enable_deck=True, deck_fields=())
@begun
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
    model, rows, scored = local(checkpoint), local(data), local(benchmarks)
    places = sampled_folders(recipe, data=rows, benchmarks=scored, out=out)
    once(
        "preference pairs",
        recipe,
        run,
        out,
        tags={"siqvl.stage": Stage.DPO.value},
        reads=[model, rows, scored, [recipe.stages.dpo.sampled.source]],
        make=lambda _: add_sampled_pairs(
            recipe, checkpoint=model, data=rows, benchmarks=scored, out=out
        ),
        keep=lambda log: _keep_reports(places, log),
        atomic=False,
    )
    return PreferencePairs(
        data=PreparedData(str(places.data)),
        benchmarks=benchmarks
        if places.benchmarks == scored
        else PreparedData(str(places.benchmarks)),
    )


def _keep_reports(folders: SampledFolders, log: RunLog) -> None:
    """Statistics and small files of what was sampled, in its run; its pages as decks."""
    for folder in folders.sampled:
        log.metrics(Sampling.read(folder).metrics(folder.name))
        for name in ("manifest.json", "quarantine.jsonl", "report.html", STATISTICS, PAGE):
            log.artifact(folder / name, folder.name)
        show(f"sampled {folder.name}", folder / PAGE)
