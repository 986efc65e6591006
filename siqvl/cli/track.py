"""`siqvl track …`: deliver what an MLflow store missed."""

from __future__ import annotations

import click

from siqvl.tracking.sync import Synced, fetched, sync


@click.group()
def track() -> None:
    """Look after what is logged."""


@track.command("sync")
@click.argument("folder", default="outputs/spool")
@click.option(
    "--tracking-uri",
    help="The store to deliver to, in place of the one that each run was logged to.",
)
def sync_command(folder: str, tracking_uri: str | None) -> None:
    """Deliver what waits in the outbox of FOLDER, or of an address such as s3://bucket/spool.

    The store gets every point once, however often this is run, and whatever was cut off. What it
    refuses stays in the outbox with the reason. Exit code 1: something is left, and why is said
    beside it.
    """
    done: list[Synced] = []
    with fetched(folder) as found:
        for one in sync(found, tracking_uri):
            done.append(one)
            refused = f", {one.refused:,} refused" if one.refused else ""
            said = one.left or f"{one.delivered:,} entries delivered{refused}"
            click.echo(f"run {one.run_id}: {said}")
    left = sum(bool(one.left) for one in done)
    click.echo(f"{len(done) - left} of {len(done)} runs of {folder} are delivered")
    if left:
        raise SystemExit(1)
