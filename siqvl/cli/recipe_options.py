"""The option that changes a recipe, of every command that reads one."""

from __future__ import annotations

import click

from siqvl.recipe.reading.changes import HELP, OPTION

set_option = click.option(OPTION, "changes", multiple=True, metavar="KEY=VALUE", help=HELP)
