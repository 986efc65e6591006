"""Rows of a published table: a hub data set, streamed, or local files (`table_file` says which).

Local folders look as they do on the hub: files at the top are one data set, sub-folders its
subsets, and paths say the split that a file belongs to (`splits`). Of a single file every row is
read, whatever `split` is: it is what its rows are called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from siqvl.data.sources.base import label, require_split, require_subsets
from siqvl.data.sources.formats.doubles import with_doubles
from siqvl.data.sources.formats.json_file import object_files, object_row
from siqvl.data.sources.formats.table_file import (
    BATCH,
    ENDINGS,
    DamagedRecord,
    Unread,
    count_records,
    has_ending,
    header_of,
    is_table,
    table_row,
    tables_among,
    unread_records,
)
from siqvl.data.sources.reading.card import Splits, files_said
from siqvl.data.sources.reading.folder import files_below
from siqvl.data.sources.reading.image_folder import is_metadata, pictured, read_as
from siqvl.data.sources.reading.picture_fields import Beside, Find
from siqvl.data.sources.reading.splits import (
    files_by_split,
    path_says_a_split,
    says_a_split,
    split_meant,
    split_named,
)
from siqvl.data.sources.values.where import wanted
from siqvl.errors import Unreachable, UserError
from siqvl.recipe import Source

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
KNOWN = frozenset({"train", "validation", "test"})  # what words of a split are taken for
LOOKED_AT = 100  # rows whose columns are looked at: JSON leaves out those that are empty


def check_table(source: Source, official: str = "") -> None:
    """Raise UserError unless the path, subsets and split are there.

    Args:
        official: the files that could be there in place of tables, for the message.
    """
    if source.path is None:
        raise UserError(f"{label(source)} needs a `path`: a hub id, a folder or a file")
    if not is_local(source):
        _check_hub(source)
        return
    root = Path(source.path)
    require_subsets(source, [] if source.row_files else local_subsets(root))
    everything = _tables(source)
    if not everything and source.row_files:
        raise UserError(
            f"{label(source)}: {source.path} is no folder with .json files, each of which would be "
            "a row; correct `path`, or leave `row_files` out"
        )
    if not everything:
        endings = ", ".join(ENDINGS)
        none = f"neither {official} nor a" if official else "no"
        raise UserError(f"{label(source)}: {source.path} holds {none} table ({endings})")
    if root.is_dir():
        splits_of = _splits(source, everything)
        for subset in subsets_of(source):
            splits = splits_of(subset)
            split = split_named(source.split, [*splits])
            require_split(source.model_copy(update={"split": split}), sorted(splits))
            if subset in source.subsets and not splits[split]:
                raise UserError(f"{label(source)}: subset `{subset}` has no split `{source.split}`")
    if source.pictures is not None and not Path(source.pictures).is_dir():
        raise UserError(
            f"{label(source)}: {source.pictures} is no folder; correct `pictures`, which like "
            "`path` counts from the folder where you are"
        )


def is_local(source: Source) -> bool:
    """Whether the path is a place on this machine, which then has to exist.

    Raises:
        UserError: it looks like a place on this machine, but nothing is there.
    """
    path = Path(source.path or "")
    if path.exists():
        return True
    if HUB_ID.fullmatch(source.path or "") and not has_ending(path.name):
        return False
    raise UserError(f"{label(source)}: {path} does not exist; correct `path`")


def subsets_of(source: Source) -> list[str | None]:
    """The subsets to read; [None] when the data set has none."""
    if source.subsets:
        return list(source.subsets)
    if source.row_files:
        return [None]
    if is_local(source):
        return list(local_subsets(Path(str(source.path)))) or [None]
    from datasets import get_dataset_config_names

    return get_dataset_config_names(str(source.path), revision=source.revision) or [None]


def local_subsets(path: Path) -> list[str]:
    """The subsets that a card names, else sub-folders with tables; none where some lie above.

    None either where one of them is `data` or says a split: what it holds would be of no subset.
    """
    if not path.is_dir():
        return []
    if said := files_said(path):
        return [] if list(said) == ["default"] else list(said)
    if any(is_table(file) for file in path.iterdir()):
        return []
    tables = tables_among(files_below(path))
    if any(file.parent == path for file in tables):
        return []
    folders = sorted({file.relative_to(path).parts[0] for file in tables})
    return [] if any(name == "data" or says_a_split(name) for name in folders) else folders


def records(
    source: Source,
    subset: str | None,
    only: Sequence[str] | None = None,
    *,
    through: int | None = None,
) -> Iterator[tuple[Unread, Find | None]]:
    """Published rows of a subset, unread, each with what reads the pictures that it names.

    With `where` every row has to be read to tell whether it is asked for; one that cannot be is.

    Args:
        only: columns that are enough, with dots into them; where files are stored by column, others
            are not read, but for those that `where` looks into.
        through: rows that are looked through at most, asked for or not; None for all.
    """
    asked_for = wanted(source)
    if only is not None:
        named = (*only, *source.where)
        only = [part for column in named for part in (column, column.split(".")[0])]
    for read, find in islice(_all_records(source, subset, only), through):
        if asked_for is None:
            yield read, find
            continue
        try:
            found = read()
        except DamagedRecord:
            yield read, find
            continue
        if asked_for(found):
            yield partial(dict, found), find


def _all_records(
    source: Source, subset: str | None, only: Sequence[str] | None
) -> Iterator[tuple[Unread, Find | None]]:
    if not is_local(source):
        yield from ((read, None) for read in _hub(source, subset, only))
        return
    path = Path(str(source.path))
    root = path.parent if path.is_file() else path
    beside: dict[Path, Beside] = {}  # which looks into a folder once for all tables in it
    for file in split_tables(source, subset):
        place = (file.parent, root)
        if source.pictures is not None:
            place = (Path(source.pictures), Path(source.pictures))
        find = beside.setdefault(place[0], Beside(*place)).find
        if source.row_files:
            yield partial(object_row, file, root), find
            continue
        unread = unread_records(file, only)
        if is_metadata(file):
            # a file that is the source itself is read whole, whatever split its pictures are of
            said = path.is_file() or path_says_a_split(file, root)
            unread = (partial(pictured, read, split_is_said=said) for read in unread)
        yield from ((read, find) for read in unread)


def known_size(source: Source) -> int | None:
    """The number of rows of a local data set; None on the hub, where cards may be out of date."""
    if not is_local(source):
        return None
    if source.where:
        found = (records(source, subset, []) for subset in subsets_of(source))
        return sum(1 for one in found for _ in one)
    files = local_files(source)
    return len(files) if source.row_files else sum(map(count_records, files))


def local_files(source: Source) -> list[Path]:
    """The files of a local data set that are read, of all its subsets."""
    return [file for subset in subsets_of(source) for file in split_tables(source, subset)]


def interleaved(streams: list[Iterator[Any]]) -> Iterator[Any]:
    """One item of each stream in turn, so that the first rows are of all subsets."""
    while streams:
        alive = []
        for stream in streams:
            for item in islice(stream, 1):
                yield item
                alive.append(stream)
        streams = alive


def columns(source: Source) -> list[str]:
    """Columns of the first rows of a data set; empty when it has no rows."""
    found: dict[str, None] = {}
    for read, _ in islice(_all_records(source, subsets_of(source)[0], None), LOOKED_AT):
        try:
            found |= dict.fromkeys(read())
        except DamagedRecord:
            continue
        if not is_local(source):
            break  # all rows of a hub data set have the same columns
    return list(found)


def no_rows(source: Source) -> str:
    """What to say of a data set whose first rows have no columns."""
    for read, _ in islice(_all_records(source, subsets_of(source)[0], None), 1):
        try:
            read()
        except DamagedRecord as error:
            return f"none in its first rows, which are bad: {error}"
    return "no rows"


def refuse_mixed_splits(source: Source, column: str = "split") -> None:
    """Raise UserError where the rows of a local data set say themselves that they are of several.

    A recipe that looks into that column has said which of them it takes.
    """
    asked = {name.split(".")[0] for name in source.where}
    if column in asked or not is_local(source) or column not in columns(source):
        return
    found: set[str] = set()
    for subset in subsets_of(source):
        for read, _ in records(source, subset, [column]):
            try:
                word = split_meant(str(read().get(column)))
            except DamagedRecord:
                continue
            found |= {word} & KNOWN
            if len(found) > 1:
                raise UserError(
                    f"{label(source)}: {source.path} has rows of several splits: its column "
                    f"`{column}` holds {' and '.join(sorted(found, reverse=True))}; say which are "
                    f"read, as in `where: {{{column}: {source.split}}}`"
                )


def headers(source: Source) -> Iterator[tuple[Path, list[str]]]:
    """The columns of each local file that names them itself, where there are several files."""
    if source.row_files:
        return
    files = local_files(source)
    for file in files if len(files) > 1 else []:
        found = header_of(file)
        if found:
            yield file, [*map(read_as, found)] if is_metadata(file) else found


def require_columns(source: Source, needed: tuple[str, ...]) -> None:
    """Raise UserError unless the first rows have all these columns."""
    found = columns(source)
    for column in needed:
        if column not in found:
            raise UserError(
                f"{label(source)}: {source.path} has no column `{column}`; "
                f"it has {', '.join(found) or no_rows(source)}"
            )


def split_tables(source: Source, subset: str | None) -> list[Path]:
    """The files of a subset that belong to the source's split."""
    root = Path(str(source.path))
    everything = _tables(source)
    if root.is_file():
        return everything
    splits = _splits(source, everything)(subset)
    return splits.get(split_named(source.split, [*splits]), [])


def _splits(source: Source, everything: list[Path]) -> Callable[[str | None], Splits]:
    """What gives a subset's tables by their split: as the folder's card says, else as paths do."""
    root = Path(str(source.path))
    if not source.row_files and (said := files_said(root)):
        return lambda subset: said[subset or next(iter(said))]
    found = files_by_split(everything, root)

    def splits_of(subset: str | None) -> Splits:
        inside = root / (subset or "")
        return {
            split: [file for file in files if file.is_relative_to(inside)]
            for split, files in found.items()
        }

    return splits_of


def local_splits(source: Source) -> Splits:
    """Split -> its tables, of all splits of the subsets that are read.

    Of a single file it is the split that its name says, though all of it is read.
    """
    root, everything = Path(str(source.path)), _tables(source)
    if root.is_file():
        return files_by_split(everything, root.parent)
    found: Splits = {}
    splits_of = _splits(source, everything)
    for subset in subsets_of(source):
        for split, files in splits_of(subset).items():
            found.setdefault(split, []).extend(files)
    return found


def _tables(source: Source) -> list[Path]:
    """All tables of the subsets that are read, of every split."""
    root = Path(str(source.path))
    if source.row_files:
        return object_files(files_below(root)) if root.is_dir() else []
    if root.is_file():
        return [root] if has_ending(root.name) else []
    if said := files_said(root):
        chosen = [said[subset] for subset in source.subsets or said if subset in said]
        return sorted({file for splits in chosen for files in splits.values() for file in files})
    folders = [root / subset for subset in source.subsets] or [root]
    return tables_among(file for folder in folders for file in files_below(folder))


def _check_hub(source: Source) -> None:
    from datasets import get_dataset_config_names, get_dataset_split_names
    from datasets.exceptions import DatasetNotFoundError

    path = str(source.path)
    try:
        if source.subsets:
            require_subsets(source, get_dataset_config_names(path, revision=source.revision))
        subset = source.subsets[0] if source.subsets else subsets_of(source)[0]
        require_split(source, get_dataset_split_names(path, subset, revision=source.revision))
    except UserError:
        raise
    except Exception as error:  # offline, unknown, private, gated: each its own exception
        kind = UserError if isinstance(error, DatasetNotFoundError) else Unreachable
        raise kind(
            f"{label(source)}: hub data set {path} cannot be reached ({_named(error)}); correct "
            "`path`, log in with `hf auth login`, or give a local folder"
        ) from None


def _hub(source: Source, subset: str | None, only: Sequence[str] | None) -> Iterator[Unread]:
    """A stream of Arrow batches; the rows of those passed over are never made Python objects.

    A bad read is repeated by `datasets` (20 times, 5 s apart) before it ends here.
    """
    from datasets import load_dataset

    path, number = str(source.path), 0
    try:
        stream = load_dataset(
            path, subset, split=source.split, streaming=True, revision=source.revision
        )
        if only is not None:
            stream = stream.select_columns([name for name in stream.column_names if name in only])
        # pictures stay encoded: they are checked, then stored as they are
        for batch in stream.decode(False).with_format("arrow").iter(batch_size=BATCH):
            batch = with_doubles(batch)
            for index in range(batch.num_rows):
                number += 1
                yield partial(table_row, batch, index)
    except Exception as error:  # the hub, the network, a damaged file: each its own exception
        raise UserError(
            f"{label(source)}: hub data set {path} broke off after {number} rows "
            f"({_named(error)}); run it again, or give a local folder"
        ) from None


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
