"""A recipe's text as a mapping: every key stands once, and aliases do not blow it up.

YAML and JSON readers take the last of two equal keys, and a few lines of YAML aliases can stand for
more than a machine holds. Both are seen in the tree of nodes, before anything is made of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from siqvl.errors import UserError, one_line
from siqvl.recipe.reading.shipped import shipped

#: Bytes of a file, and characters of what it stands for; a plan of Flyte's may have 2 MB.
MOST = 2**20


def read_document(path: str | Path) -> dict[str, Any]:
    """Return the mapping that a file holds: JSON if it is called so, else YAML.

    Raises:
        UserError: it is missing, a folder, empty, not UTF-8, too long, no mapping, a key stands
            twice, or its aliases stand for too much.
    """
    text = _text(path)
    if not text.strip():
        raise UserError(f"{path} is empty: a recipe has `key: value` lines")
    if Path(path).suffix == ".json":
        return parse_json(text, str(path))
    return _parse(_yaml, "YAML", text, str(path))


def parse_json(text: str, name: str) -> dict[str, Any]:
    """Return the mapping that a JSON text holds.

    Args:
        name: of the text in an error, such as its file.

    Raises:
        UserError: it is no JSON object, or a key stands twice in one.
    """
    return _parse(lambda it: json.loads(it, object_pairs_hook=_once), "JSON", text, name)


def parse_value(text: str, name: str) -> Any:
    """Return what a text says in YAML; `1e-4` is a number too, as in YAML 1.2.

    Args:
        name: of the text in an error.

    Raises:
        UserError: it is no YAML, a key stands twice, or its aliases stand for too much.
    """
    return _read(lambda it: _yaml(it, _NumberLoader), "YAML", text, name)


class _NumberLoader(yaml.SafeLoader):
    """PyYAML's, which by YAML 1.1 takes a number for a text if it has an exponent and no dot."""


_NumberLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _text(path: str | Path) -> str:
    try:
        with open(shipped(path), "rb") as file:
            data = file.read(MOST + 1)
    except FileNotFoundError:
        raise UserError(
            f"recipe file {path} does not exist; the shipped ones are in recipes/"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a recipe file") from None
    except (OSError, ValueError) as error:  # a name that no disk takes is a ValueError
        raise UserError(f"recipe file {path} cannot be read: {one_line(error)}") from None
    if len(data) > MOST:
        raise UserError(f"{path} has more than {MOST:,} bytes: it is no recipe")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (from byte {error.start}); save it as UTF-8"
        ) from None


def _read(read: Callable[[str], Any], kind: str, text: str, name: str) -> Any:
    try:
        return read(text)
    except UserError as error:
        raise UserError(f"{name}: {error.message}") from None
    except Exception as error:  # beside YAMLError whatever PyYAML's constructors run into
        raise UserError(f"{name} is not valid {kind}: {one_line(error)}") from None


def _parse(read: Callable[[str], Any], kind: str, text: str, name: str) -> dict[str, Any]:
    content = _read(read, kind, text, name)
    if not isinstance(content, dict):
        raise UserError(f"{name} holds no recipe: expected `key: value` lines at its top level")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"key `{twice}` stands twice; leave one out")
    return content


def _yaml(text: str, kind: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    loader = kind(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, "", {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, at: str, sizes: dict[int, int | None]) -> int:
    """Count the characters of a node with its aliases written out; each node is looked at once.

    Args:
        at: its dotted key.
        sizes: of the nodes that were counted; None of those that this one stands in.

    Raises:
        UserError: a key stands twice, a node stands in itself, or it is too large.
    """
    if id(node) in sizes:
        known = sizes[id(node)]
        if known is None:
            raise UserError(f"`{at}` is an alias of what it stands in")
        return known
    sizes[id(node)] = None
    total = 1 + (len(node.value) if isinstance(node, yaml.ScalarNode) else 0)
    for name, part in _parts(node, at):
        total += _size(part, name, sizes)
    if total > MOST:
        raise UserError(
            f"`{at or 'top level'}` stands for more than {MOST:,} characters by its aliases; "
            "write out what is needed"
        )
    sizes[id(node)] = total
    return total


def _parts(node: yaml.Node, at: str) -> Iterator[tuple[str, yaml.Node]]:
    """Nodes that stand in another one, keys among them, each with the dotted key of its place."""
    if isinstance(node, yaml.SequenceNode):
        yield from ((f"{at}.{index}", item) for index, item in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            line, named = key.start_mark.line + 1, (key.tag, str(key.value))
            name = f"{at}.{key.value}".removeprefix(".")
            if named in lines:
                raise UserError(
                    f"key `{name}` stands twice, in lines {lines[named]} and {line}; leave one out"
                )
            lines[named] = line
            yield from ((name, key), (name, value))
