"""The aliases of a registered model: `candidate` after every pipeline, `champion` by the gate."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from siqvl.errors import UserError, one_line
from siqvl.evaluation.scoring.predictions import PREDICTIONS
from siqvl.evaluation.scoring.scores import SCORES, Scores
from siqvl.registry.champion import Outcome, over_champion, over_floors, questions_key
from siqvl.registry.versions import CHECKPOINT, Registry, RegistryAway, Version
from siqvl.tracking.runs import RunLog, client

CANDIDATE = "candidate"
CHAMPION = "champion"
#: Tag of a version: where the scores are that it is judged by, `runs:/<run>/<folder>`. Scores about
#: other questions, of a later pipeline, have a tag of their own, `siqvl.evaluation.<questions>`.
EVALUATION = "siqvl.evaluation"
#: Tag of a version: when `champion` was last given to it, ISO 8601, by a pipeline.
SINCE = "siqvl.champion_since"
FOLDER = "evaluation"
#: Comparisons at most, when other pipelines make champions meanwhile.
ATTEMPTS = 5


def make_candidate(
    log: RunLog, registry: Registry, number: int, report: Path, benchmark: str | None
) -> None:
    """Have `candidate` point to a version, and keep the scores it will be judged by.

    What an earlier pipeline or a person said of the scores stays: later models are compared by it.

    Args:
        log: the pipeline's run, which keeps the report: the run that made it may be another
            pipeline's, when it came from a cache.
        report: its EvalReport.
        benchmark: as in `promote`.

    Raises:
        RegistryAway: the store does not answer.
    """
    log.artifact(report, FOLDER)
    if not log.flush():  # a version must not point to scores that are not there
        raise RegistryAway("MLflow does not answer; the scores wait to be delivered")
    known = registry.version(number).tags
    name = _again(report, benchmark) if EVALUATION in known else EVALUATION
    if name is not None and name not in known:
        registry.tag(number, {name: f"runs:/{log.run_id}/{FOLDER}"})
    registry.give(CANDIDATE, number)


def promote(registry: Registry, number: int, report: Path, benchmark: str | None) -> Outcome:
    """Have `champion` point to a version if it is better than the one that has it.

    Other pipelines may promote at the same time, and a registry has no lock. So each gives the
    alias, notes on the version that it did, and looks who else got it since it began. The last one
    to look sees all of them, and leaves the alias with the best.

    Args:
        report: the version's EvalReport.
        benchmark: on which they are compared; None: nothing is compared.
    """
    for _ in range(ATTEMPTS):
        before = {version.number: version.tags[SINCE] for version in registry.tagged(SINCE)}
        holder = registry.holder(CHAMPION)
        outcome = _judge(registry, number, report, benchmark, holder)
        if not outcome.moved:
            return outcome
        now = registry.holder(CHAMPION)
        if (now and now.number) == (holder and holder.number):
            _crown(registry, number)
            if benchmark is None:
                return outcome
            best = _left_with_the_best(registry, number, report, benchmark, before)
            if best is None:
                return outcome
            return _judge(registry, number, report, benchmark, best)._replace(moved=False)
    return Outcome(
        False,
        f"version {number} of `{registry.name}` does not become the champion: other pipelines keep "
        "changing the champion",
    )


def _crown(registry: Registry, number: int) -> None:
    registry.give(CHAMPION, number)
    registry.tag(number, {SINCE: datetime.now(UTC).isoformat()})


def _left_with_the_best(
    registry: Registry, number: int, report: Path, benchmark: str, before: dict[int, str]
) -> Version | None:
    """Give `champion` to the best of those that got it since `before`, a version's own among them.

    One that was given it by hand keeps it.

    Returns:
        The best, if it is another version.
    """
    best: Version | None = None
    for _ in range(ATTEMPTS):
        crowned = registry.tagged(SINCE)
        rivals = [
            version
            for version in crowned
            if version.number != number and version.tags[SINCE] != before.get(version.number)
        ]
        if not rivals:
            return None
        winner = _best(registry, number, report, rivals, benchmark)
        best = next((version for version in rivals if version.number == winner), None)
        holder = registry.holder(CHAMPION)
        losers = {number, *(version.number for version in rivals)} - {winner}
        if holder is None or holder.number not in losers:
            return best
        _crown(registry, winner)
    return best


def _best(
    registry: Registry, number: int, report: Path, rivals: list[Version], benchmark: str
) -> int:
    """The best version by its scores; of two that do not beat each other, the older.

    All pipelines that ask about the same versions find the same one.
    """
    with tempfile.TemporaryDirectory() as folder:
        reports = {number: report}
        for rival in rivals:
            with suppress(UserError):  # scores that are gone
                place = Path(folder, str(rival.number))
                reports[rival.number] = _kept(registry, rival, place, report, benchmark)
        best, *others = sorted(reports)
        for other in others:
            with suppress(UserError):  # about other questions
                if over_champion(reports[other], reports[best], benchmark, "").moved:
                    best = other
    return best


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
                kept = _kept(registry, holder, Path(folder), report, benchmark)
                name = f"version {holder.number}"
                moved, reason = over_champion(report, kept, benchmark, name)
    except UserError as error:
        moved, reason = False, error.message
    return Outcome(moved, f"{own} {'is' if moved else 'does not become'} the champion: {reason}")


def _again(report: Path, benchmark: str | None) -> str | None:
    """The tag of scores about other questions than a version's first ones."""
    asked = questions_key(report, benchmark) if benchmark else None
    return asked and f"{EVALUATION}.{asked}"


def _kept(registry: Registry, version: Version, folder: Path, report: Path, benchmark: str) -> Path:
    """The EvalReport of a version to compare another one with; about its questions, if there is."""
    first = _fetched(registry, version, EVALUATION, folder / "first")
    again = _again(report, benchmark)
    if again not in version.tags or again == _again(first, benchmark):
        return first
    return _fetched(registry, version, again, folder / "again")


def _fetched(registry: Registry, version: Version, tag: str, folder: Path) -> Path:
    """The EvalReport that a version's tag names, without its page."""
    from mlflow.exceptions import MlflowException

    folder.mkdir(parents=True)
    place = version.tags.get(tag, "")
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
