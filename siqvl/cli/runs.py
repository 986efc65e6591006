"""`siqvl runs …`: look at what was tracked."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import click

from siqvl.comparison.differences import facts_table, recipe_table
from siqvl.comparison.lookup import find_run, open_store
from siqvl.comparison.score_differences import score_table
from siqvl.comparison.side import Side, heading
from siqvl.tracking.heartbeat import end_lost
from siqvl.tracking.runs import DEFAULT_STORE


@click.group()
def runs() -> None:
    """Look at runs in MLflow."""


@runs.command()
@click.argument("a")
@click.argument("b")
@click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    default=DEFAULT_STORE,
    show_default=True,
    show_envvar=True,
    help="The recipe's `tracking.uri`.",
)
@click.option(
    "--experiment", default="siqvl", show_default=True, help="The recipe's `tracking.experiment`."
)
def compare(a: str, b: str, tracking_uri: str, experiment: str) -> None:
    """Say what B scores more than A, question by question, and what else is different.

    A and B are pipelines or single runs: a run's name, its id, or the first characters of that; or
    registered models, such as models:/siqvl-tiny@champion.
    """
    # its bars would stand between the lines of a table
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with open_store(tracking_uri) as store, tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(Exception):  # who may only read can compare
            end_lost(tracking_uri, experiment)
        sides = [
            Side.load(store, find_run(store, experiment, wanted), Path(folder) / name)
            for name, wanted in (("A", a), ("B", b))
        ]
        parts = [heading(*sides), score_table(*sides), recipe_table(*sides), facts_table(*sides)]
    click.echo("\n\n".join(parts))
