"""Scores and earlier stages of a checkpoint that MLflow alone knows, found by content."""

import shutil
from pathlib import Path

import pytest

from siqvl.comparison.lookup import open_store
from siqvl.publish.publication import Target, Wanted, publish
from siqvl.publish.tracked_evidence import TrackedEvidence
from siqvl.recipe import Recipe, Stage
from siqvl.registry.promotion import make_candidate
from siqvl.registry.versions import CHECKPOINT, Registry
from siqvl.tracking.runs import start_run
from tests.publish.conftest import Run, scored
from tests.tracking.conftest import recipe, store

__all__ = ["recipe", "store"]


@pytest.fixture
def alone(run: Run, tmp_path: Path) -> Path:
    """A copy of the checkpoint where nothing lies beside it."""
    return Path(shutil.copytree(run.checkpoint(), tmp_path / "alone" / "here"))


def test_the_newest_run_about_these_weights_counts(
    run: Run, alone: Path, recipe: Recipe, tmp_path: Path
) -> None:
    hash, parent = (run.cards[stage].hash for stage in (Stage.VQA_SFT, Stage.PROJECTOR_ALIGNMENT))
    uri = recipe.tracking.uri or ""
    training = start_run(recipe, "projector_alignment")
    registered = run.checkpoint(Stage.PROJECTOR_ALIGNMENT)
    Registry(uri, "tiny").register(training, registered)
    last = None
    for number, (checkpoint, right) in enumerate(((hash, 0.5), (hash, 0.6), ("f" * 64, 0.9))):
        log = start_run(recipe, "evaluation", tags={CHECKPOINT: checkpoint})
        report = tmp_path / f"report{number}"
        report.mkdir()
        scored(checkpoint, right=right).write(report)
        log.artifact(report, "evaluation")
        assert log.flush()
        last = log.run_id if checkpoint == hash else last
    # a run that says it is about these weights, whose report is about others
    log = start_run(recipe, "evaluation", tags={CHECKPOINT: hash})
    log.artifact(report, "evaluation")
    assert log.flush()

    with open_store(uri) as opened:
        place = TrackedEvidence(opened)
        wanted = Wanted(Target(None, tmp_path / "out"), load=False, places=[place])
        made = publish(alone, wanted)
        assert place.card("0" * 64) is None
    assert [card.hash for card in made.evidence.lineage] == [parent, hash]
    assert made.evidence.scores is not None
    assert made.evidence.scores.scores[0].players["picture"].mean == 0.6
    assert f"From MLflow run {last};" in made.card
    assert "**60.0 %**" in made.card


def test_scores_that_a_version_refers_to_are_found(
    run: Run, alone: Path, recipe: Recipe, tmp_path: Path
) -> None:
    """A pipeline's own run keeps the report, without the tag, when its evaluation was cached."""
    hash = run.cards[Stage.VQA_SFT].hash
    registry = Registry(recipe.tracking.uri or "", "referred")
    log = start_run(recipe, "pipeline")
    number = registry.register(log, run.checkpoint())
    make_candidate(log, registry, number, run.report, "vqa")
    with open_store(recipe.tracking.uri or "") as opened:
        found = [
            one.place
            for one in TrackedEvidence(opened).scores(hash)
            if one.place == f"MLflow run {log.run_id}"
        ]
    assert found
