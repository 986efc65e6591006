"""One of two runs that are compared, with what was logged of it and of its pipeline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from siqvl.comparison.lookup import SHOWN_ID, search
from siqvl.evaluation.scoring.predictions import PREDICTIONS
from siqvl.evaluation.scoring.scores import SCORES, Scores
from siqvl.recipe import Control, Stage
from siqvl.registry.versions import CHECKPOINT
from siqvl.text_table import text_table
from siqvl.tracking.environment import ENVIRONMENT, RECIPE
from siqvl.tracking.runs import flatten

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EVALUATION = "evaluation"  # the folder of an EvalReport among a run's artifacts
PARENT = "mlflow.parentRunId"

#: A stage, and which control it is, if one.
Trained = tuple[Stage, Control | None]


@dataclass(frozen=True)
class Side:
    """A run, and what one can say about it.

    Attributes:
        reports: scores and EvalReport directory of each evaluation, in the order of the stages.
        recipe: by dotted key.
        facts: what else decides the scores, by its name.
    """

    run: Run
    reports: dict[Trained, tuple[Scores, Path]]
    recipe: dict[str, str]
    facts: dict[str, str]

    @classmethod
    def load(cls, store: MlflowClient, run: Run, folder: Path) -> Side:
        """Fetch what is needed of a run into a folder."""
        family = _family(store, run)
        reports: dict[Trained, tuple[Scores, Path]] = {}
        for one in family:
            place = _report(store, one, folder)
            if place is not None:
                scores = Scores.read(place)
                reports.setdefault((scores.stage, scores.control), (scores, place))
        stages = list(Stage)
        ordered = sorted(reports, key=lambda key: (stages.index(key[0]), key[1] or ""))
        reports = {key: reports[key] for key in ordered}
        parent = run.data.tags.get(PARENT)
        origin = [run, *([store.get_run(parent)] if parent else [])]
        facts = _facts(run, family, reports) | _packages(store, origin, folder)
        return cls(run, reports, _recipe(store, origin, folder), facts)


def heading(a: Side, b: Side) -> str:
    """Return a table that says which two runs are compared."""
    rows = [("", "run", "name", "started", "took", "status")]
    for name, side in (("A", a), ("B", b)):
        info = side.run.info
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.start_time / 1000))
        seconds = (info.end_time - info.start_time) / 1000 if info.end_time else None
        took = "–" if seconds is None else f"{seconds:,.0f} s"
        rows.append((name, info.run_id[:SHOWN_ID], info.run_name, started, took, info.status))
    return "\n".join(text_table(rows, left=(0, 1, 2, 3, 5)))


def _family(store: MlflowClient, run: Run) -> list[Run]:
    """The runs that speak for this one: itself, its children, of a training its evaluations.

    Those are told by the checkpoint, whichever pipeline or command they were part of; in stores of
    version 0.1, which does not name it, they are the pipeline's. Of several attempts at a step the
    newest that finished comes first.
    """
    parent, trained = run.data.tags.get(PARENT), run.data.tags.get(CHECKPOINT)
    found = [run, *_children(store, run)]
    if trained:
        of_checkpoint = search(store, run.info.experiment_id, f"tags.`{CHECKPOINT}` = '{trained}'")
        found += [one for one in of_checkpoint if one.info.run_id != run.info.run_id]
    elif parent and len(found) == 1:
        beside = f"{run.info.run_name} evaluation"
        siblings = _children(store, store.get_run(parent))
        found += [one for one in siblings if one.info.run_name == beside]
    return sorted(found, key=lambda one: one.info.status != "FINISHED")


def _children(store: MlflowClient, run: Run) -> list[Run]:
    wanted = f"tags.`{PARENT}` = '{run.info.run_id}'"
    return search(store, run.info.experiment_id, wanted)


def _report(store: MlflowClient, run: Run, folder: Path) -> Path | None:
    """The EvalReport among a run's artifacts, fetched; None if it has none."""
    there = {file.path for file in store.list_artifacts(run.info.run_id, EVALUATION)}
    wanted = [f"{EVALUATION}/{name}" for name in (SCORES, PREDICTIONS)]
    if not there.issuperset(wanted):
        return None
    fetched = [_fetched(store, run, path, folder) for path in wanted]
    return fetched[-1].parent


def _artifact(store: MlflowClient, run: Run, name: str, folder: Path) -> str | None:
    """The text of a file that was logged with a run."""
    if name not in {file.path for file in store.list_artifacts(run.info.run_id)}:
        return None
    return _fetched(store, run, name, folder).read_text(encoding="utf-8")


def _fetched(store: MlflowClient, run: Run, path: str, folder: Path) -> Path:
    """An artifact as a file; local stores and servers put it at different places in the folder."""
    place = folder / run.info.run_id
    place.mkdir(parents=True, exist_ok=True)
    return Path(store.download_artifacts(run.info.run_id, path, str(place)))


def _recipe(store: MlflowClient, origin: list[Run], folder: Path) -> dict[str, str]:
    """The recipe that was logged with a run, or with the pipeline that it is part of."""
    for one in origin:
        text = _artifact(store, one, RECIPE, folder)
        if text is not None:
            return {key: shown_value(value) for key, value in flatten(yaml.safe_load(text)).items()}
        if "stages.dpo.beta" in one.data.params:  # a whole recipe, of before there was the file
            return {key: shown_value(value) for key, value in one.data.params.items()}
    return {key: shown_value(value) for key, value in origin[0].data.params.items()}


def _packages(store: MlflowClient, origin: list[Run], folder: Path) -> dict[str, str]:
    """What was installed where the run began."""
    texts = (_artifact(store, one, ENVIRONMENT, folder) for one in origin)
    text = next((text for text in texts if text is not None), "")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {f"package {name}": version for name, _, version in (x.partition("==") for x in lines)}


def shown_value(value: object) -> str:
    """Return a value as a recipe has it, on one line."""
    text = {"None": "null", "True": "true", "False": "false", "": '""'}.get(str(value), str(value))
    return text.replace("\n", "\\n")


def _facts(
    run: Run, family: list[Run], reports: dict[Trained, tuple[Scores, Path]]
) -> dict[str, str]:
    facts = {"code": run.data.tags.get("siqvl.code_version", "")}
    for one in family:
        fingerprint = one.data.params.get("data_fingerprint")
        if fingerprint:
            facts.setdefault(f"data of {one.info.run_name}", fingerprint)
    for scores, _ in reports.values():
        for score in scores.scores:
            about = f"benchmark {score.benchmark}"
            facts[f"{about}: data"] = score.data_fingerprint
            facts[f"{about}: scorer"] = score.scorer
            facts[f"{about}: method"] = score.method
            facts[f"{about}: decoding"] = str(score.decoding)
    for (stage, control), (scores, _) in reports.items():
        facts[f"checkpoint {title(stage, control)}"] = scores.checkpoint_hash
    return facts


def title(stage: Stage, control: Control | None) -> str:
    """Return the name of a stage, as in the tables that a pipeline ends with."""
    return stage.value + (f", {control.words}" if control else "")
