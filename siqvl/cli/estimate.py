"""`siqvl estimate`: what a recipe takes before anything is started."""

from __future__ import annotations

from pathlib import Path

import click

from siqvl.cli.recipe_options import set_option


@click.command()
@click.argument("recipe_file", metavar="RECIPE")
@set_option
@click.option("--gpu", help="h100, a100-40, l40s, 4090, …  [default: this machine]")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Prepared rows, a folder a stage: their own plan in place of the recipe's bounds.",
)
@click.option("--stage", "stages", multiple=True, help="This stage alone.")
@click.option(
    "--mfu",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the GPU's peak.  [default: a published one, which is said]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the same for machines.")
def estimate(
    recipe_file: str,
    changes: tuple[str, ...],
    gpu: str | None,
    data: Path | None,
    stages: tuple[str, ...],
    mfu: float | None,
    as_json: bool,
) -> None:
    """Estimate what RECIPE takes: memory, disk, tokens, operations, hours.

    Nothing is downloaded, loaded or trained: neither weights nor a GPU are needed. What follows
    from the recipe or from prepared rows (--data) is exact; ≤ marks what can only be less. Exit
    code 1: a stage does not fit.
    """
    from siqvl.errors import UserError
    from siqvl.estimate.estimate_table import estimate_lines
    from siqvl.estimate.recipe_estimate import estimate_recipe
    from siqvl.recipe import Recipe, Stage

    names = [stage.value for stage in Stage]
    if strangers := set(stages) - set(names):
        raise UserError(f"--stage {min(strangers)} is none of {', '.join(names)}")
    recipe = Recipe.load(recipe_file, changes)
    chosen = [Stage(name) for name in stages] or None
    found = estimate_recipe(recipe, gpu=gpu, mfu=mfu, data=data, stages=chosen)
    lines = [found.model_dump_json(indent=1)] if as_json else estimate_lines(found)
    for line in lines:
        click.echo(line)
    if any(stage.fits is False for stage in found.stages):
        raise SystemExit(1)
