"""The options that say how a data set is read, of every command that reads one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from siqvl.recipe import Source

OPTIONS = (
    click.option("--adapter", help="How it is published, a `kind` of sources.  [default: table]"),
    click.option("--split", help="[default: train]"),
    click.option("--subset", "subsets", multiple=True, help="One of its subsets.  [default: all]"),
    click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="FIELD=COLUMN",
        help="As in `columns`: one column, a pattern, a [list, of, columns], or null.",
    ),
    click.option("--choices-are", help="As in `choices_are`: text, letter, index0 or index1."),
    click.option("--pictures", help="The folder of its pictures.  [default: beside the table]"),
)


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command these options, in their order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def source_of(what: str, given: dict[str, Any]) -> Source:
    """A data set as a recipe would name it.

    Args:
        given: keys of a source, as the options have them; those that are empty count as not given.

    Raises:
        UserError: an option is not as it should be.
    """
    from pydantic import ValidationError

    from siqvl.errors import UserError
    from siqvl.recipe import Source
    from siqvl.recipe.reading.load import explain

    given = {key: value for key, value in given.items() if value}
    content = {"kind": given.pop("adapter", "table"), "path": what, **given}
    content["columns"] = dict(map(_column, given.get("columns", ())))
    content["subsets"] = [*given.get("subsets", ())]
    try:
        return Source.model_validate(content)
    except ValidationError as error:
        raise UserError(explain(error, Source)) from None


def _column(said: str) -> tuple[str, Any]:
    """`field=column` -> both; a column may be null or a list as in YAML."""
    import yaml

    from siqvl.errors import UserError

    field, equals, column = said.partition("=")
    if not (field and equals and column):
        raise UserError(f"`--column {said}` should be like `--column answer=label`")
    if column.startswith("["):
        try:
            return field, yaml.safe_load(column)
        except yaml.YAMLError:
            raise UserError(f"`--column {said}`: a list is written like `{field}=[A, B]`") from None
    return field, None if column == "null" else column
