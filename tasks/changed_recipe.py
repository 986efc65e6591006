"""`--set` of `pyflyte run`, beside `--recipe` of whatever task, workflow or launch plan has one.

The recipe is changed where it is read, on the machine of the user: what a task is given, and what
Flyte's cache goes by, is the changed one, and no task has an input more.
"""

from __future__ import annotations

from typing import Any

import click
from flytekit.clis.sdk_in_container.run import YamlFileReadingCommand
from flytekit.interaction.click_types import JsonParamType

from siqvl.recipe import Recipe
from siqvl.recipe.reading.changes import HELP, OPTION
from tasks.given_recipe import given_recipe

KEPT = "siqvl.changes"  # in click's context, where the recipe's option finds them

_parsed = JsonParamType._parse
_begin = YamlFileReadingCommand.__init__


def _parsed_recipe(self: JsonParamType, value: Any, param: click.Parameter | None) -> Any:
    """A recipe of the command line, judged as `Recipe.load` does, by its file and key.

    flytekit would read the file itself: keys that stand twice would be gone, and one that is
    missing or no YAML would be a traceback, or "should be a valid json object".
    """
    if self._python_type is not Recipe or not isinstance(value, str):
        return _parsed(self, value, param)
    context = click.get_current_context(silent=True)
    return given_recipe(value, context.meta.get(KEPT, ()) if context else ())


def _with_set(
    self: YamlFileReadingCommand, name: str, params: list[click.Parameter], *args: Any, **named: Any
) -> None:
    """A command of `pyflyte run`, with the option more if it has a recipe."""
    if any(getattr(param.type, "_python_type", None) is Recipe for param in params):
        params.append(_option())
    _begin(self, name, params, *args, **named)


def _option() -> click.Option:
    return click.Option(
        [OPTION, "changes"],
        multiple=True,
        metavar="KEY=VALUE",
        help=HELP,
        is_eager=True,  # before the recipe, wherever it stands
        expose_value=False,
        callback=_keep,
    )


def _keep(context: click.Context, param: click.Parameter, given: tuple[str, ...]) -> None:
    context.meta[KEPT] = given


# There is no way to give flytekit a click type for an input of ours, or an option that is no input.
JsonParamType._parse = _parsed_recipe
YamlFileReadingCommand.__init__ = _with_set
