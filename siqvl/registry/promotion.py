"""The aliases of a registered model: `candidate` after every pipeline, `champion` by the gate."""

from __future__ import annotations

import tempfile
from pathlib import Path

from siqvl.errors import UserError, one_line
from siqvl.evaluation.scoring.predictions import PREDICTIONS
from siqvl.evaluation.scoring.scores import SCORES, Scores
from siqvl.registry.champion import Outcome, over_champion, over_floors
from siqvl.registry.versions import CHECKPOINT, Registry, RegistryAway, Version
from siqvl.tracking.runs import RunLog, client

CANDIDATE = "candidate"
CHAMPION = "champion"
#: Tag of a version: where the scores are that it is judged by, `runs:/<run>/<folder>`.
EVALUATION = "siqvl.evaluation"
FOLDER = "evaluation"
#: Comparisons at most, when other pipelines make champions meanwhile.
ATTEMPTS = 5


def make_candidate(log: RunLog, registry: Registry, number: int, report: Path) -> None:
    """Have `candidate` point to a version, and keep the scores it will be judged by.

    Args:
        log: the pipeline's run, which keeps the report: the run that made it may be another
            pipeline's, when it came from a cache.
        report: its EvalReport.

    Raises:
        RegistryAway: the store does not answer.
    """
    log.artifact(report, FOLDER)
    if not log.flush():  # a version must not point to scores that are not there
        raise RegistryAway("MLflow does not answer; the scores wait to be delivered")
    registry.tag(number, {EVALUATION: f"runs:/{log.run_id}/{FOLDER}"})
    registry.give(CANDIDATE, number)


def promote(registry: Registry, number: int, report: Path, benchmark: str | None) -> Outcome:
    """Have `champion` point to a version if it is better than the one that has it.

    Args:
        report: the version's EvalReport.
        benchmark: on which they are compared; None: nothing is compared.
    """
    for _ in range(ATTEMPTS):
        holder = registry.holder(CHAMPION)
        outcome = _judge(registry, number, report, benchmark, holder)
        if not outcome.moved:
            return outcome
        now = registry.holder(CHAMPION)
        if (now and now.number) == (holder and holder.number):
            registry.give(CHAMPION, number)
            return outcome
    return Outcome(
        False,
        f"version {number} of `{registry.name}` does not become the champion: other pipelines keep "
        "changing the champion",
    )


def _judge(
    registry: Registry, number: int, report: Path, benchmark: str | None, holder: Version | None
) -> Outcome:
    own = f"version {number} of `{registry.name}`"
    if holder is not None and holder.number == number:
        return Outcome(False, f"{own} is the champion already")
    if benchmark is None:
        return Outcome(True, f"{own} is the champion: the recipe names no champion_benchmark")
    try:
        if holder is None:
            moved, reason = over_floors(report, benchmark)
        else:
            with tempfile.TemporaryDirectory() as folder:
                kept = _fetched(registry, holder, Path(folder))
                name = f"version {holder.number}"
                moved, reason = over_champion(report, kept, benchmark, name)
    except UserError as error:
        moved, reason = False, error.message
    return Outcome(moved, f"{own} {'is' if moved else 'does not become'} the champion: {reason}")


def _fetched(registry: Registry, version: Version, folder: Path) -> Path:
    """The EvalReport that a version was judged by, without its page."""
    from mlflow.exceptions import MlflowException

    place = version.tags.get(EVALUATION, "")
    run, _, path = place.removeprefix("runs:/").partition("/")
    if not path:
        raise UserError(
            f"the champion, version {version.number}, has no tag {EVALUATION}; set it to "
            "runs:/RUN/evaluation of a run that evaluated it"
        )
    store = client(registry.uri)
    try:
        files = [
            Path(store.download_artifacts(run, f"{path}/{name}", str(folder)))
            for name in (SCORES, PREDICTIONS)
        ]
    except (MlflowException, OSError) as error:
        raise UserError(
            f"scores of the champion, {place}, are not there: {one_line(error)}"
        ) from None
    report = files[0].parent
    if Scores.read(report).checkpoint_hash != version.tags.get(CHECKPOINT):
        raise UserError(f"scores of the champion, {place}, are those of another checkpoint")
    return report
