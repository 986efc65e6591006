"""`siqvl track …`: deliver what an MLflow store missed."""

from __future__ import annotations

import click

from siqvl.tracking.spool import Synced, sync, within


@click.group()
def track() -> None:
    """Look after what is logged."""


@track.command("sync")
@click.argument("spool", default="outputs/spool")
@click.option(
    "--tracking-uri",
    help="The store to deliver to, in place of the one that each run was logged to.",
)
def sync_command(spool: str, tracking_uri: str | None) -> None:
    """Deliver what is left in SPOOL, a folder or an address such as s3://bucket/spool.

    The store gets every point once, however often this is run, and whatever was cut off. Exit code
    1: something is left, and why is said beside it.
    """
    done: list[Synced] = []
    with within(spool) as folder:
        for one in sync(folder, tracking_uri):
            done.append(one)
            click.echo(f"run {one.run_id}: {one.left or f'{one.delivered:,} entries delivered'}")
    left = sum(bool(one.left) for one in done)
    click.echo(f"{len(done) - left} of {len(done)} journals of {spool} are delivered")
    if left:
        raise SystemExit(1)
