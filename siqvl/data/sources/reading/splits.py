"""Which split a table of a folder belongs to: what `datasets.load_dataset(folder)` would say.

The rule is that of `datasets` 5.2.0, by its own code: files named like
`data/<split>-00000-of-00001.parquet` say their split; else any folder of the path may, by a word
(`train`, `training`; `validation`, `valid`, `dev`, `val`; `test`, `testing`, `eval`, `evaluation`)
that stands alone or beside `-`, `.`, `_`, a space or a digit; else a word of the file's name; and
where no path says anything, all files are `train`.

We depart from it where some files say a split and others none. `datasets` leaves the others out
without a word; here they are named, and nothing is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from siqvl.errors import UserError

SHOWN = 5  # files in a message
#: Splits of published sets (GQA) that none of the words is for: their shards are named after them.
PUBLISHED = re.compile(r"(testdev|challenge)-\d{5}-of-\d{5}\.")
ROOT = "root/"  # patterns begin below a folder, so that `**/test/**` may match `test/x.jsonl`


def files_by_split(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """Split -> its files in their order; a file whose path says two splits belongs to both.

    Args:
        files: tables below the root.
        root: the folder of the data set; what it is called says nothing.

    Raises:
        UserError: some files say a split and others do not.
    """
    from datasets.data_files import _get_data_files_patterns

    found: dict[str, list[Path]] = {}
    names = {}
    for file in files:
        if shard := PUBLISHED.match(file.name):
            found.setdefault(shard.group(1), []).append(file)
        else:
            names[f"{ROOT}{file.relative_to(root).as_posix()}"] = file
    if not names:
        return found

    def matching(pattern: str) -> list[str]:
        found = [name for name in names if _regex(pattern).match(name)]
        if not found:
            raise FileNotFoundError(pattern)
        return found

    for split, patterns in _get_data_files_patterns(matching).items():
        regexes = [_regex(pattern) for pattern in patterns]
        found[str(split)] = [
            file for name, file in names.items() if any(regex.match(name) for regex in regexes)
        ]
    told = {file for group in found.values() for file in group}
    if untold := [file for file in files if file not in told]:
        raise UserError(_mixed(untold, sorted(found), root))
    return found


def says_a_split(folder: str) -> bool:
    """Whether a folder of this name makes all files in it belong to a split."""
    return bool(splits_said(folder))


@lru_cache(maxsize=4096)
def splits_said(folder: str) -> frozenset[str]:
    """The splits of which a folder of this name makes all files in it."""
    from datasets.data_files import DEFAULT_PATTERNS_SPLIT_IN_DIR_NAME as by_folder

    inside = f"{ROOT}{folder}/file"
    return frozenset(
        str(split)
        for split, patterns in by_folder.items()
        if any(_regex(pattern).match(inside) for pattern in patterns)
    )


def path_says_a_split(file: Path, root: Path) -> bool:
    """Whether a folder of a file's path, below the root, makes it belong to a split."""
    return any(map(says_a_split, file.relative_to(root).parent.parts))


def split_named(split: str, known: Sequence[str]) -> str:
    """The split that is meant by a name: `val` and `dev` are `validation`, as in names of files.

    Returns the name itself where there is a split of that name, and where none is meant.
    """
    if split in known:
        return split
    meant = [one for one in known if split_meant(one) == split_meant(split)]
    return meant[0] if len(meant) == 1 else split


def split_meant(word: str) -> str:
    """The split that `datasets` takes a word for: `val` for `validation`; the word where none."""
    from datasets.data_files import SPLIT_KEYWORDS

    return next((str(one) for one, words in SPLIT_KEYWORDS.items() if word in words), word)


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate

    return re.compile(glob_translate(ROOT + pattern))


def _mixed(untold: Sequence[Path], splits: Sequence[str], root: Path) -> str:
    names = [file.relative_to(root).as_posix() for file in untold]
    listed = ", ".join(names[:SHOWN])
    if len(names) > SHOWN:
        listed += f" and {len(names) - SHOWN} more"
    return (
        f"{root}: the paths of some tables say a split ({', '.join(splits)}), and these say none: "
        f"{listed}; put a word like `train` or `test` into their names, move them elsewhere, or "
        "give the `path` of one file"
    )
