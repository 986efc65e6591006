"""`siqvl recipe …`: what a recipe holds, in what two differ, and whether one can start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from siqvl.cli.recipe_options import set_option

if TYPE_CHECKING:
    from siqvl.recipe import Recipe

FILES = (".yaml", ".yml", ".json")
EMPTY = {"null", "{}", '""', "false"}


@click.group()
def recipe() -> None:
    """Look at recipes."""


@recipe.command()
@click.argument("file", metavar="RECIPE")
@set_option
@click.option("--origins", is_flag=True, help="Say behind each key what it came from.")
def show(file: str, changes: tuple[str, ...], origins: bool) -> None:
    """Print RECIPE with every key, over its bases and with its defaults, as a recipe of its own."""
    from siqvl.recipe import Recipe
    from siqvl.recipe.reading.origins import origins as origins_of
    from siqvl.recipe.reading.resolved import resolved_yaml

    loaded = Recipe.load(file, changes)
    found = origins_of(file, loaded.changes) if origins else None
    click.echo(resolved_yaml(loaded, found), nl=False)


@recipe.command()
@click.argument("a")
@click.argument("b", required=False)
@set_option
@click.option("--tracking-uri", help="The MLflow store of models:/… and runs:/….")
def diff(a: str, b: str | None, changes: tuple[str, ...], tracking_uri: str | None) -> None:
    """Print the keys in which the recipe B differs from A, and both values.

    Each is a recipe, or a checkpoint, of which the recipe is meant that trained it: a folder, a hub
    id, models:/NAME@ALIAS or runs:/ID. Changes are those of B; without B, they are looked at.
    """
    from siqvl.comparison.differences import ABSENT, differing
    from siqvl.comparison.side import shown_value
    from siqvl.errors import UserError
    from siqvl.recipe.reading.resolved import resolved
    from siqvl.text_table import text_table
    from siqvl.tracking.runs import flatten

    if b is None and not changes:
        raise UserError("name a second recipe, or a change with `--set`")
    one = _recipe_of(a, tracking_uri)
    other = (one if b is None else _recipe_of(b, tracking_uri)).changed(changes)
    flat = (
        {key: shown_value(value) for key, value in flatten(resolved(each)).items()}
        for each in (one, other)
    )
    # of an entry that only one of them has, what says nothing is left out
    rows = [row for row in differing(*flat) if not (ABSENT in row[1:] and EMPTY & {*row[1:]})]
    if not rows:
        click.echo("equal")
        return
    click.echo("\n".join(text_table([("recipe", "A", "B"), *rows], left=(0, 1, 2))))


@recipe.command()
@click.argument("file", metavar="RECIPE")
@set_option
def check(file: str, changes: tuple[str, ...]) -> None:
    """Judge all of RECIPE as a pipeline does before it starts, and start nothing.

    Every problem is a line of its own; what could not be looked at, such as weights on the hub, is
    told too. Exit code 1: there is a problem.
    """
    from siqvl.check import judge
    from siqvl.recipe import Recipe

    found = judge(Recipe.load(file, changes))
    for problem in found.problems:
        click.echo(problem)
    for left in found.unchecked:
        click.echo(f"not checked: {left}")
    if found.problems:
        raise SystemExit(1)
    click.echo(f"{file} can start" + (", as far as it was checked" if found.unchecked else ""))


def _recipe_of(what: str, tracking_uri: str | None) -> Recipe:
    """A recipe's file, or what a checkpoint's card says of the one that trained it."""
    from siqvl.checkpoint import read_card
    from siqvl.recipe import Recipe
    from siqvl.registry.resolve import resolve_checkpoint

    if what.endswith(FILES):
        return Recipe.load(what)
    return read_card(resolve_checkpoint(what, tracking_uri=tracking_uri)).todays_recipe()
