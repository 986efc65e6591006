"""The house by its imports: floors import only downwards, and no two rooms import each other.

A room is what lies directly in a folder: its packages, and its modules. A package's `__init__` is a
room of its own, the door through which others see it, since it may import all that lies behind it.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ["siqvl", "tasks", "workflows"]  # each imports those before it alone
MOST_FILES = 14  # of a folder, `__init__.py` aside
LONGEST_FUNCTION = 60  # lines
#: Names that several folders may hold, as the folder says of what.
SHARED_NAMES = {"__init__", "__main__", "base", "gqa", "scienceqa", "vqav2", "runs", "schema"}


def _modules() -> dict[str, Path]:
    """Every module of the three floors; a package is named by its `__init__`."""
    files = [path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


MODULES = _modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def _imports(name: str, tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Modules of ours that a module imports, at its top or inside of functions, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".")[: -node.level] if node.level else []
            module = ".".join([*package, *([node.module] if node.module else [])])
            targets = [f"{module}.{alias.name}" for alias in node.names] + [module]
            # `from package import module` takes the module, and nothing else from the package
            if all(target in MODULES or _door(target) for target in targets[:-1]):
                targets.pop()
        else:
            continue
        for target in targets:
            if found := target if target in MODULES else _door(target):
                yield found, node.lineno


def _door(package: str) -> str | None:
    return f"{package}.__init__" if f"{package}.__init__" in MODULES else None


def _edges() -> list[tuple[str, str, int]]:
    """(importer, imported, line) for every import of one of our modules by another."""
    return [
        (name, target, line)
        for name, tree in TREES.items()
        for target, line in _imports(name, tree)
        if target != name
    ]


EDGES = _edges()


def _rooms(importer: str, imported: str) -> tuple[str, str, str]:
    """The folder that both lie in, and the two of its rooms that they lie in."""
    one, other = importer.split("."), imported.split(".")
    depth = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    folder = ".".join(one[:depth])
    return folder, one[depth], other[depth]


def _circle(edges: list[tuple[str, str, int]]) -> list[str]:
    """The imports that close a circle between rooms of one folder, or nothing."""
    graphs: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    lines: dict[tuple[str, str, str], str] = {}
    for importer, imported, line in edges:
        folder, one, other = _rooms(importer, imported)
        graphs[folder][one].add(other)
        lines[folder, one, other] = f"{importer}:{line} imports {imported}"
    for folder, graph in graphs.items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]  # graphlib names each after the one it is imported by
            return [lines[folder, one, other] for one, other in pairwise(circle)]
    return []


def test_no_two_rooms_of_a_folder_import_each_other() -> None:
    assert _circle(EDGES) == []


def test_a_circle_is_found_and_the_imports_that_close_it_are_named() -> None:
    """One import upwards makes the house's own graph a circle, however long the way round is."""
    assert len(EDGES) > 1_000
    there = ("siqvl.training.stage", "siqvl.data.schema", 1)
    back = ("siqvl.data.packing", "siqvl.training.stage", 7)
    found = _circle([*EDGES, there, back])
    assert "siqvl.data.packing:7 imports siqvl.training.stage" in found
    assert len(found) >= 2
    inside = [
        ("siqvl.data.sources.a", "siqvl.data.shards", 1),
        ("siqvl.data.shards", "siqvl.data.sources.a", 2),
    ]
    assert len(_circle(inside)) == 2


def test_an_import_inside_a_function_counts() -> None:
    tree = ast.parse("def f():\n    from siqvl.data import sources\n    import siqvl.errors\n")
    assert {name for name, _ in _imports("siqvl.x", tree)} == {
        "siqvl.data.sources.__init__",
        "siqvl.errors",
    }


def test_floors_import_downwards_alone() -> None:
    height = {floor: number for number, floor in enumerate(FLOORS)}
    upward = [
        f"{importer}:{line} imports {imported}"
        for importer, imported, line in EDGES
        if height[importer.split(".")[0]] < height[imported.split(".")[0]]
    ]
    assert upward == []


def test_the_library_knows_nothing_of_flyte() -> None:
    found = []
    for name, tree in TREES.items():
        if not name.startswith("siqvl."):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            else:
                continue
            found += [f"{name}: {one}" for one in imported if one.startswith("flyte")]
    assert found == []


def test_every_package_has_a_door() -> None:
    folders = {path.parent for path in MODULES.values()}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_a_folder_holds_about_a_dozen_files() -> None:
    counts = Counter(
        name.rpartition(".")[0]
        for name in MODULES
        if name.startswith("siqvl.") and not name.endswith("__init__")
    )
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_no_two_files_share_a_name() -> None:
    names = defaultdict(list)
    for name in MODULES:
        if name.startswith("siqvl."):
            names[name.rpartition(".")[2]].append(name)
    shared = {name: where for name, where in names.items() if len(where) > 1}
    assert {name: where for name, where in shared.items() if name not in SHARED_NAMES} == {}


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports test files by their names alone, and cannot collect the second of two."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_function_is_longer_than_a_page() -> None:
    long = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{name}.{node.name}: {lines} lines")
    assert long == []
