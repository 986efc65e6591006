"""JSON lines and JSON: a list of rows, or one object that holds rows by their ids.

A key that stands twice in one object makes its row a damaged one: `json` keeps the last value and
says nothing. NaN and Infinity are read, as `json` does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from siqvl.data.sources.formats.json_list import SPACE, Pairs, Repeated, list_items, noting
from siqvl.data.sources.formats.record import (
    BROKEN,
    DamagedRecord,
    Record,
    Unread,
    record,
    refuse,
    shown,
)
from siqvl.data.sources.formats.text_file import (
    LONGEST,
    encoding,
    head_of,
    is_named,
    numbered_byte_lines,
    opened,
    without_ending,
)
from siqvl.errors import UserError

LOOKED_AT = 10  # lines, to tell JSON lines
HEAD = 2**20  # bytes in which the first rows of an object are looked for
#: Objects that are about a data set; the first three are those that `datasets` leaves out.
ABOUT = frozenset(
    {"dataset_info.json", "dataset_infos.json", "config.json", "state.json", "metadata.json"}
)


def json_lines(file: Path) -> Iterator[Unread]:
    """Rows of a file with one object a line."""
    for number, line in numbered_byte_lines(file):
        if line.strip():
            yield partial(_line, number, line)


def json_rows(file: Path) -> Iterator[Unread]:
    """Rows of a JSON file: a list, lines, an object of rows by their ids, or a single row.

    Rows of an object have their id as a column `key`.

    Raises:
        UserError: it is neither, or holds lists of rows under names, of which none is chosen.
        ValueError: it is no JSON.
    """
    if first_character(file) == "[":
        yield from _rows_of_list(file)
        return
    if holds_lines(file):
        yield from json_lines(file)
        return
    found, repeated = _loaded(file)
    if isinstance(found, dict):
        yield from _rows_of_object(file, found, repeated)
    else:
        raise UserError(f"{file} holds no rows but {type(found).__name__}: {found!r}"[:300])


def holds_lines(file: Path) -> bool:
    """Whether a JSON file holds JSON lines: an object in its first line and something after it.

    Where the first line is damaged, two of the first lines that follow one another are objects: in
    one JSON document they would have a comma between them.
    """
    try:
        lines = (line for _, line in numbered_byte_lines(file) if line.strip())
        whole = [_is_object(line) for line in islice(lines, LOOKED_AT)]
    except (*BROKEN, UserError):
        return False
    return (len(whole) > 1 and whole[0]) or any(map(all, pairwise(whole)))


def holds_rows_by_id(file: Path) -> bool:
    """Whether the first values of an object are all objects, as far as a look at it tells.

    Objects that are about a data set (`ABOUT`) hold none.
    """
    try:
        head = head_of(file, HEAD)
        text = head.decode(encoding(head), errors="ignore")
    except BROKEN:
        return False
    return file.name.lower().removesuffix(".gz") not in ABOUT and _begins_with_rows(
        text.lstrip(SPACE)
    )


def first_character(file: Path) -> str:
    """The first character that is no space; empty when it cannot be read."""
    try:
        head = head_of(file, 4096)
        return head.decode(encoding(head), errors="ignore").lstrip(SPACE)[:1]
    except BROKEN:
        return ""


def object_files(files: Iterable[Path]) -> list[Path]:
    """The JSON files among those of a folder in order of paths, for sets with one file a row."""
    return sorted(file for file in files if is_named(file, ".json") and file.is_file())


def object_row(file: Path, folder: Path) -> Record:
    """The one row of a JSON file: the object that it holds.

    It has one more column `file`, the path of the file in the folder without its ending, for
    pictures that are called alike.

    Raises:
        DamagedRecord: the file holds anything else, or a column `file` of its own.
    """
    name = without_ending(file.relative_to(folder).as_posix())
    try:
        with opened(file) as stream:
            content = stream.read(LONGEST + 1)
        if len(content) > LONGEST:
            refuse(f"{file} has more than {LONGEST // 2**20} MiB")
        row = record(decoded(content))
    except (*BROKEN, RecursionError, DamagedRecord) as error:
        raise DamagedRecord(f"{name}.json: {shown(error)}") from None
    if "file" in row:
        refuse(f"{name}.json has a column `file` of its own: rename it")
    return {**row, "file": name}


def once(pairs: Pairs) -> Record:
    """An object of these keys and values.

    Raises:
        DamagedRecord: a key stands twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        refuse(f"the key `{_twice(pairs)}` stands twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=once)


def decoded(content: bytes) -> Any:
    """What a small JSON file holds.

    Raises:
        DamagedRecord: a key stands twice in an object.
        ValueError: it is no JSON.
        RecursionError: it is too deep.
    """
    return _DECODER.decode(content.decode(encoding(content)))


def _line(number: int, line: bytes) -> Record:
    try:
        return record(_DECODER.decode(line.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        # "line 1" of one line would mislead
        place, what = "", shown(error)
        if isinstance(error, json.JSONDecodeError):
            place, what = f", character {error.pos + 1}", error.msg
        raise DamagedRecord(f"line {number}{place}: {what}: {line[:40]!r}") from None
    except DamagedRecord as error:
        raise DamagedRecord(f"line {number}: {error}") from None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


def _rows_of_list(file: Path) -> Iterator[Unread]:
    try:
        yield from (partial(_item, item, repeated) for item, repeated in list_items(file))
    except ValueError:
        _loaded(file)  # whose error says where
        raise


def _loaded(file: Path) -> tuple[Any, Repeated]:
    """What a file holds, and the objects in it in which a key stands twice."""
    repeated: Repeated = {}
    with opened(file) as stream:
        content = stream.read()
    return noting(repeated).decode(content.decode(encoding(content))), repeated


def _item(item: Any, repeated: Repeated) -> Record:
    if repeated and (pairs := _repeated_in(item, repeated)):
        refuse(f"the key `{_twice(pairs)}` stands twice in one object")
    return record(item)


def _repeated_in(item: Any, repeated: Repeated) -> Pairs | None:
    left = [item]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if id(one) in repeated:
                return repeated[id(one)]
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
    return None


def _twice(pairs: Pairs) -> str:
    counts = Counter(key for key, _ in pairs)
    return next(key for key, count in counts.items() if count > 1)


def _rows_of_object(file: Path, found: Record, repeated: Repeated) -> Iterator[Unread]:
    objects = [key for key, value in found.items() if isinstance(value, dict)]
    if len(objects) == len(found):
        yield from _rows_by_id(file, repeated.get(id(found)) or [*found.items()], repeated)
        return
    if lists := [
        f"`{key}` ({len(value)} rows)"
        for key, value in found.items()
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
    ]:
        raise UserError(
            f"{file} is one object that holds {', '.join(lists)}: lists in an object are not read; "
            "store the one that is meant as a file of its own, or, if the object is one row, "
            "name the file .jsonl"
        )
    if len(objects) > len(found) / 2:
        other = next(key for key, value in found.items() if not isinstance(value, dict))
        raise UserError(
            f"{file}: rows by their ids are objects, and `{other}` is "
            f"{type(found[other]).__name__}; take it out of the file"
        )
    yield partial(_item, found, repeated)


def _rows_by_id(file: Path, pairs: Pairs, repeated: Repeated) -> Iterator[Unread]:
    counts = Counter(key for key, _ in pairs)
    for key, row in pairs:
        if isinstance(row, dict) and row.get("key", key) != key:
            raise UserError(
                f"{file}: row `{key}` has a column `key` of its own, which is what its id is "
                "called; rename that column"
            )
    for key, row in pairs:
        if counts[key] > 1:
            yield partial(refuse, f"the id `{key}` stands {counts[key]} times")
        else:
            yield partial(_keyed, key, row, repeated)


def _keyed(key: str, row: Any, repeated: Repeated) -> Record:
    try:
        return {"key": key, **_item(row, repeated)}
    except DamagedRecord as error:
        raise DamagedRecord(f"`{key}`: {error}") from None


def _begins_with_rows(text: str) -> bool:
    """Whether a text begins with an object whose values, those that are whole, are objects."""
    if not text.startswith("{"):
        return False
    decoder, place, seen = json.JSONDecoder(), 1, 0
    try:
        while True:
            key, place = decoder.raw_decode(text, _past_space(text, place))
            place = _past_space(text, place)
            if not isinstance(key, str) or text[place] != ":":
                return False
            place = _past_space(text, place + 1)
            if text[place] != "{":
                return False
            seen += 1
            _, place = decoder.raw_decode(text, place)
            place = _past_space(text, place)
            if text[place] != ",":
                return text[place] == "}"
            place += 1
    except (ValueError, IndexError, RecursionError):  # it goes on behind what is looked at
        return seen > 0


def _past_space(text: str, place: int) -> int:
    while text[place] in SPACE:
        place += 1
    return place
