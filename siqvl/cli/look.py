"""`siqvl look`: what the model will see of a source, before anything is prepared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from siqvl.cli.recipe_options import set_option
from siqvl.cli.source_options import source_of, source_options

if TYPE_CHECKING:
    from siqvl.look.subjects import Subject
    from siqvl.recipe import Recipe

KINDS = ("sft", "preference", "evaluation")
RECIPES = (".yaml", ".yml")


@click.command()
@click.argument("what")
@click.option("--kind", type=click.Choice(KINDS), help="What its rows are for.  [default: sft]")
@source_options
@click.option("--recipe", "recipe_file", help="Whose model reads it: shows that model's tokens.")
@set_option
@click.option("--stage", help="Of the recipe; or `evaluation`, for its benchmarks.")
@click.option(
    "--rows",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="Rows of each source on the page.",
)
@click.option("-o", "--output", default="look.html", show_default=True, help="The page.")
def look(
    what: str,
    recipe_file: str | None,
    changes: tuple[str, ...],
    stage: str | None,
    rows: int,
    output: str,
    **source: Any,
) -> None:
    """Show the first rows of WHAT as the model will see them, and what looks wrong.

    WHAT is a recipe, of which every source is looked at, or a data set: a file, a folder or a hub
    id. Nothing is prepared, and of a large data set only the first rows are read. Exit code 1: a
    source cannot be read, and why is said.
    """
    from siqvl.errors import UserError
    from siqvl.files import check_not_read
    from siqvl.look.doubts import shared_pictures
    from siqvl.look.first_rows import look_at
    from siqvl.look.look_page import in_terminal, render_look
    from siqvl.look.recipe_processor import local_processor
    from siqvl.page.render import write_page

    given = {key: value for key, value in source.items() if value}
    for read in (what, recipe_file):
        if read:
            check_not_read(Path(output), read, "-o")
    recipe, subjects = _subjects(what, recipe_file, changes, stage, given)
    processor, no_tokens = local_processor(recipe)
    found = [look_at(subject, rows, processor) for subject in subjects]
    failed = [one for one in found if one.error]
    if len(failed) == len(found):
        raise UserError(failed[0].error)
    shared_pictures(found)
    write_page(Path(output), render_look(what, found, no_tokens), "-o")
    for line in in_terminal(found):
        click.echo(line)
    click.echo(f"\n{output}" + (f" (without tokens: {no_tokens})" if no_tokens else ""))
    if failed:
        raise SystemExit(1)


def _subjects(
    what: str,
    recipe_file: str | None,
    changes: tuple[str, ...],
    stage: str | None,
    given: dict[str, Any],
) -> tuple[Recipe | None, list[Subject]]:
    """What is looked at, and the recipe that says how."""
    from siqvl.data.schema import RowKind
    from siqvl.errors import UserError
    from siqvl.look.subjects import of_recipe, of_source
    from siqvl.recipe import Recipe

    if what.endswith(RECIPES):
        if recipe_file or given:
            option = "--recipe" if recipe_file else f"--{min(given).replace('_', '-').rstrip('s')}"
            raise UserError(f"{what} is a recipe, which says this itself; leave `{option}` out")
        recipe = Recipe.load(what, changes)
        return recipe, of_recipe(recipe, stage)
    if stage and not recipe_file:
        raise UserError("a stage is part of a recipe: name the recipe with `--recipe`")
    if changes and not recipe_file:
        raise UserError("`--set` changes a recipe: name the recipe with `--recipe`")
    chosen = Recipe.load(recipe_file, changes) if recipe_file else None
    kind = RowKind(given.pop("kind", RowKind.SFT))
    return chosen, [of_source(source_of(what, given), kind, chosen, stage)]
