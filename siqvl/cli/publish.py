"""`siqvl publish`: a checkpoint as a Hugging Face repository with a card of measured figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from siqvl.publish.publication import Publication, Wanted


@click.command()
@click.argument("checkpoint")
@click.option("--to", "target", required=True, help="A folder, or a hub id: owner/name.")
@click.option("--dry-run", is_flag=True, help="Show the card and the files; write nothing.")
@click.option("--private", is_flag=True, help="A repository that is made on the hub is private.")
@click.option("--branch", "--revision", "branch", help="Of the hub's repository.  [default: main]")
@click.option("--message", help="Of the commit.")
@click.option("--license", "licence", help="Of the model, such as apache-2.0.")
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A report of `tasks/evaluation.py`, beside those that are found.",
)
@click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    show_envvar=True,
    help="The MLflow store that is asked for scores.  [default: sqlite:///mlflow.db, if there]",
)
@click.option("--skip-load", is_flag=True, help="Do not load it in a fresh process first.")
def publish(checkpoint: str, target: str, dry_run: bool, **options: Any) -> None:
    """Publish CHECKPOINT, a folder, hub id, models:/… or runs:/…, with a model card.

    The card has what was measured: scores of this checkpoint are found by its content, in the
    folder of its run and in MLflow. Before anything is written or uploaded, the repository is
    checked (files, hashes, no path of this machine, no secret) and loaded without this package.
    """
    from siqvl.publish.publication import Target, Wanted
    from siqvl.registry.resolve import resolve_checkpoint

    uri, load = options.pop("tracking_uri"), not options.pop("skip_load")
    wanted = Wanted(Target.of(target), load=load, **options)
    folder = resolve_checkpoint(checkpoint, tracking_uri=uri)
    click.echo(f"to {wanted.target}" + (" (nothing is written)" if dry_run else ""))
    made = _with_store(folder, wanted, uri, dry_run)
    if dry_run:
        click.echo(f"\n{made.card}")
    _tell(made, wanted)


def _with_store(folder: Path, wanted: Wanted, uri: str | None, dry_run: bool) -> Publication:
    """Publish with what MLflow knows, where there is a store."""
    from dataclasses import replace

    from siqvl.comparison.lookup import open_store
    from siqvl.publish.publication import publish as published
    from siqvl.publish.tracked_evidence import TrackedEvidence
    from siqvl.tracking.store import DEFAULT_STORE, is_missing_file

    # its bars would stand between the lines of what is told
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if uri is None and is_missing_file(DEFAULT_STORE):
        return published(folder, wanted, dry_run=dry_run)
    with open_store(uri or DEFAULT_STORE) as store:
        places = [TrackedEvidence(store)]
        return published(folder, replace(wanted, places=places), dry_run=dry_run)


def _tell(made: Publication, wanted: Wanted) -> None:
    from siqvl.publish.licences import UNKNOWN, front_matter

    for name, size in made.files:
        click.echo(f"{size:>15,}  {name}")
    click.echo(f"{sum(size for _, size in made.files):>15,}  in {len(made.files)} files")
    if made.answer:
        click.echo(f"loads without this package ({made.answer.seconds:.1f} s)")
    if made.evidence.scores is None:
        click.echo("no scores of this checkpoint were found: its card says so")
    if front_matter(made.card).get("license") == UNKNOWN:
        click.echo("its licence is not known: name it with --license", err=True)
    if made.address:
        click.echo(made.address)
