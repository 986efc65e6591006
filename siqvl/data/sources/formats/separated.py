"""CSV and TSV, of which no row can vanish in a quoted field that was never closed.

A field in quotes may hold line breaks (RFC 4180), so where a quote is missing the field goes on
until the next one, maybe thousands of rows later, and what comes out may look like a row. Every
well-formed record has an even number of quotes. So a row that goes over several lines has to be
well-formed and to have as many fields as the first line names, and in a file with such a row no
other line may have an odd number of quotes. Otherwise the file is refused, with the line in which
the quote opens. In a file where every row is a line, a stray quote is text, as for Python's `csv`
and pandas.

Two missing quotes may still make up one well-formed row. That is refused where it takes in `ALIKE`
lines or more, each of which would be a row by itself.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from siqvl.data.sources.formats.record import DamagedRecord, Record, Unread, refuse
from siqvl.data.sources.formats.text_file import LONGEST, numbered_lines
from siqvl.errors import UserError

ALIKE = 5
QUOTE = '"'
ADVICE = 'close it, or double every quote that is part of a text ("")'
Lines = Iterator[tuple[int, str]]


@dataclass(slots=True)
class Found:
    """One record: the lines that it takes in, and its fields."""

    first: int
    last: int
    values: list[str]
    damage: str = ""  # why the fields mean nothing
    opened: int = 0  # line in which the first field that goes over several lines opens
    stray: bool = False  # a quote stands where none may
    odd: bool = False  # the quotes of its one line do not pair
    separators: frozenset[int] = frozenset()  # how many each of its lines has


def separated_rows(file: Path, delimiter: str) -> Iterator[Unread]:
    """The rows of a CSV or TSV in their order.

    Raises:
        UserError: the first line does not name each column once, or a missing quote may have taken
            rows in.
    """
    found = _records(file, numbered_lines(file), delimiter)
    header = next(found, None)
    if header is None:
        return
    _check_header(file, header)
    names = header.values
    over_lines, odd = header if header.opened else None, None
    for one in found:
        if one.opened:
            _check_several_lines(file, one, len(names))
            over_lines = over_lines or one
        elif one.odd:
            odd = odd or one
        if over_lines and odd:
            raise UserError(
                f"{file}: a quote is missing or stands alone in line {odd.first}, and the field "
                f"that opens in line {over_lines.opened} takes line breaks in: which rows there "
                f"are cannot be told; {ADVICE}"
            )
        yield partial(_fields, names, one)


def _fields(names: list[str], found: Found) -> Record:
    if found.damage:
        refuse(f"line {found.first}: {found.damage}")
    if len(found.values) != len(names):
        refuse(
            f"line {found.first}: {len(found.values)} fields, but the first line names {len(names)}"
        )
    row = dict(zip(names, found.values, strict=True))
    for name, value in row.items():
        if not value.isascii() and (reason := _no_text(value)):
            refuse(f"line {found.first}: column `{name}` {reason}")
    return row


def _no_text(value: str) -> str:
    """Why a text cannot be encoded; empty where it can."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # what `surrogateescape` makes of bytes
            return (
                f"holds the byte 0x{code - 0xDC00:02x}, which is no UTF-8; store the file in UTF-8"
            )
        return f"holds half of a character, U+{code:04X}"
    return ""


def _check_header(file: Path, header: Found) -> None:
    names = header.values
    wrong = header.damage
    if header.odd or (header.opened and header.stray):
        wrong = f"a quote is missing or stands alone; {ADVICE}"
    elif any("\0" in name for name in names):
        wrong = "it holds NULs: UTF-16 without a byte-order mark, or no text; store it in UTF-8"
    elif reason := next(filter(None, map(_no_text, names)), ""):
        wrong = f"a name {reason}"
    elif empty := [number for number, name in enumerate(names, 1) if not name.strip()]:
        wrong = (
            f"column {empty[0]} has no name; name it, or leave it out (pandas: "
            "`to_csv(…, index=False)`)"
        )
    elif twice := [name for name, count in Counter(names).items() if count > 1]:
        wrong = f"it names `{twice[0]}` twice; give every column a name of its own"
    if wrong:
        raise UserError(f"{file}, line {header.first}, which names the columns: {wrong}")


def _check_several_lines(file: Path, found: Found, columns: int) -> None:
    """Raise UserError where rows may have been taken in by a quote that was not closed."""
    takes = (
        f"{file}: the quote that opens in line {found.opened} takes in the lines to {found.last}"
    )
    if found.damage or found.stray:
        why = "and what follows is not quoted as it should be"
    elif len(found.values) != columns:
        why = f"and the row has {len(found.values)} fields, but the first line names {columns}"
    elif found.last - found.first >= ALIKE - 1 and found.separators == {columns - 1} != {0}:
        why = "each of which would be a row by itself"
    else:
        return
    raise UserError(f"{takes}, {why}; {ADVICE}")


def _records(file: Path, lines: Lines, delimiter: str) -> Iterator[Found]:
    """Lines put together to records; blank ones between them are passed over."""
    pairs = _Pairs(delimiter)
    for number, line in lines:
        if QUOTE not in line:
            if text := line.rstrip("\r\n"):
                yield Found(number, number, text.split(delimiter))
        elif values := pairs.fields(line):
            yield Found(number, number, values)
        else:
            yield _Record(file, number, line, lines, delimiter).found


class _Pairs:
    """Takes apart a record of one line whose quotes pair, by `csv`, which is quick."""

    def __init__(self, delimiter: str) -> None:
        self._line = ""
        self._reader = csv.reader(self, delimiter=delimiter, strict=True)

    def __iter__(self) -> _Pairs:
        return self

    def __next__(self) -> str:
        line, self._line = self._line, ""
        if not line:
            raise StopIteration
        return line

    def fields(self, line: str) -> list[str] | None:
        """The fields; None where it goes on in the next line, is damaged, or too long for `csv`."""
        if line.count(QUOTE) % 2:
            return None
        self._line = line
        try:
            return next(self._reader)
        except csv.Error:
            return None


class _Record:
    """Takes one record apart that has quotes in it, reading on where it goes over several lines."""

    def __init__(self, file: Path, number: int, line: str, lines: Lines, delimiter: str) -> None:
        self._file, self._lines, self._delimiter = file, lines, delimiter
        self._line, self._at = line, 0
        self.found = found = Found(number, number, [])
        self._count()
        odd = line.count(QUOTE) % 2 == 1
        try:
            while True:
                found.values.append(self._quoted() if self._here(QUOTE) else self._plain())
                if not self._here(delimiter):
                    break
                self._at += 1
            found.odd = odd and not found.opened
        except DamagedRecord as error:
            found.damage = str(error)
            if odd and not found.opened:  # it may have gone on in the next line
                raise UserError(f"{file}, line {number}: {error}; {ADVICE}") from None

    def _here(self, character: str) -> bool:
        return self._line.startswith(character, self._at)

    def _plain(self) -> str:
        end = self._line.find(self._delimiter, self._at)
        end = len(self._line.rstrip("\r\n")) if end < 0 else end
        value, self._at = self._line[self._at : end], end
        self.found.stray = self.found.stray or QUOTE in value
        return value

    def _quoted(self) -> str:
        opened, parts, held = self.found.last, [], 0
        start = self._at = self._at + 1
        while True:
            end = self._line.find(QUOTE, self._at)
            if end < 0:
                parts.append(self._line[start:])
                held += len(parts[-1])
                self._next_line(opened, held)
                start = 0
            elif self._line.startswith(QUOTE, end + 1):
                self._at = end + 2
            else:
                break
        parts.append(self._line[start:end])
        self._at = end + 1
        rest = self._line[self._at : self._at + 1]
        if rest not in ("", "\r", "\n", self._delimiter):
            raise DamagedRecord(f"text after a closing quote ({self._line[end:][:20]!r})")
        return "".join(parts).replace(QUOTE * 2, QUOTE)

    def _next_line(self, opened: int, held: int) -> None:
        """Reads on within quotes."""
        found = next(self._lines, None)
        if found is None or held > LONGEST:
            until = f"within {LONGEST // 2**20} MiB" if found else "by the end of the file"
            raise UserError(
                f"{self._file}: the quote that opens in line {opened} is not closed {until}; "
                f"{ADVICE}"
            )
        self.found.last, self._line = found
        self._at, self.found.opened = 0, self.found.opened or opened
        self._count()

    def _count(self) -> None:
        self.found.separators |= {self._line.count(self._delimiter)}
