"""What each key of a recipe came from: a line of its file or of one of its bases, or `--set`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from siqvl.recipe.reading.changes import OPTION
from siqvl.recipe.reading.document import read_document
from siqvl.recipe.reading.shipped import shipped

DEFAULT = "default"
#: Dotted key -> what it came from.
Origins = dict[str, str]


def origins(path: str | Path, changes: Iterable[str] = ()) -> Origins:
    """Return where the keys stand that a recipe file, its bases and `--set` have.

    A key of a base that a file has anew is that file's. Of a list or section that is written as a
    whole there are the entries' lines too.

    Args:
        path: of a recipe that can be read.
        changes: each `key=value`, as `Recipe.changes` has them.
    """
    found: Origins = {}
    for file in _with_bases(Path(path)):
        for key, line, replaces in _keys(file):
            if replaces:
                found = {one: at for one, at in found.items() if not one.startswith(f"{key}.")}
            found[key] = f"{file}:{line}"
    for change in changes:
        key = change.partition("=")[0]
        found = {one: at for one, at in found.items() if not one.startswith(f"{key}.")}
        found[key] = OPTION
    return found


def origin_of(key: str, found: Origins) -> str:
    """Return what a key came from: where it or what it is an entry of was written, or `default`."""
    if key in found:
        return found[key]
    above = key
    while above := above.rpartition(".")[0]:
        if found.get(above) == OPTION:
            return OPTION
        if (named := f"{above}.benchmark") in found:  # a published one has the keys
            return found[named]
    return DEFAULT


def _with_bases(path: Path) -> list[Path]:
    """A recipe's files, the lowest base first."""
    files = [path]
    while isinstance(base := read_document(files[0]).get("base"), str):
        files.insert(0, Path(base))
    return files


def _keys(file: Path) -> Iterator[tuple[str, int, bool]]:
    """Each key of a file with its line, and whether it takes the place of all that was below it."""
    node = yaml.compose(shipped(file).read_text(encoding="utf-8-sig"), yaml.SafeLoader)
    if node is not None:
        yield from _below(node, "")


def _below(node: yaml.Node, at: str) -> Iterator[tuple[str, int, bool]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{at}.{key.value}".removeprefix(".")
            yield name, key.start_mark.line + 1, not isinstance(value, yaml.MappingNode)
            yield from _below(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield f"{at}.{number}", value.start_mark.line + 1, True
            yield from _below(value, f"{at}.{number}")
