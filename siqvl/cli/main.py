"""The command `siqvl`; a new group of commands is a module of this package and a line below."""

from __future__ import annotations

import click

from siqvl.cli.answer import answer
from siqvl.cli.chat import chat
from siqvl.cli.estimate import estimate
from siqvl.cli.export import export
from siqvl.cli.look import look
from siqvl.cli.publish import publish
from siqvl.cli.recipe import recipe
from siqvl.cli.runs import runs
from siqvl.cli.serve import serve
from siqvl.cli.track import track


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """What one does with SiQ-VL beside running its tasks."""


main.add_command(answer)
main.add_command(chat)
main.add_command(estimate)
main.add_command(export)
main.add_command(look)
main.add_command(publish)
main.add_command(recipe)
main.add_command(runs)
main.add_command(serve)
main.add_command(track)
