"""Count rows while they are merged, and decide which of them are kept.

Ids are unique by construction: a row whose id an earlier one has, of this or another source, gets
`~<source>.<row>` after it, the number of its source (from 1) and its own in that (from 0), as in
`train/train/0000012~2.12`. It is so called wherever it is named.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import pyarrow as pa

from siqvl.data.manifest import Manifest, Shard, SourceRows, Spread
from siqvl.data.preparation.checks import Checked
from siqvl.data.preparation.distinct_pictures import Leaks, PictureWriter
from siqvl.data.preparation.duplicates import Duplicates
from siqvl.data.preparation.pieces import Summary, line_of
from siqvl.data.schema import Row, RowKind
from siqvl.recipe import ChoicesAre, DataPrep, Source

TOP_ANSWERS = 20
EACH = 2  # examples of a source, where it has so many rows
UNKNOWN = "?"  # the id of a row that has none
#: Longer answers are not counted one by one: sentences hardly repeat, and would fill the memory.
TOP_ANSWER_CHARACTERS = 80


class Tally:
    """What the manifest says about the rows, in one pass over them.

    It keeps some hundred bytes a row (its id and content) and a picture, never texts or pixels.

    Args:
        keeps_all: repeats are kept, as of the published questions that a score is over.
    """

    def __init__(
        self,
        kind: RowKind,
        sources: list[Source],
        data: DataPrep,
        leaks: Leaks,
        pictures: PictureWriter,
        *,
        keeps_all: bool = False,
    ) -> None:
        self.kind = kind
        self.summary = Summary()
        self.left_out: Counter[str] = Counter()
        self.refused: dict[str, dict[str, str]] = {}  # reason -> first line, left-out rows too
        self.of_sources = [Counter[str]() for _ in sources]  # by the names of SourceRows
        self._sources = sources
        self._leaks = leaks
        self._pictures = pictures
        level = "none" if keeps_all else data.duplicates
        self._duplicates = Duplicates(level, data.near)
        self._neutralised = 0
        self._by_source: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._widths: Counter[int] = Counter()
        self._heights: Counter[int] = Counter()
        self._prompt_characters: Counter[int] = Counter()
        self._answer_characters: Counter[int] = Counter()
        self._ids: set[bytes] = set()
        self._fingerprint = hashlib.sha256(kind.value.encode())

    @property
    def rows_of_sources(self) -> list[int]:
        return [rows["kept"] for rows in self.of_sources]

    def named(self, found: Sequence[Checked], table: pa.Table, source: int) -> pa.Table:
        """Make the ids of a source's next rows unique, in `found` and in the stored columns."""
        rows = self.of_sources[source]
        before = rows["renamed"]
        for checked in found:
            if checked.id != UNKNOWN:
                suffix = f"~{source + 1}.{rows['read']}"
                rows["renamed"] += self._rename(checked, suffix)
            rows["read"] += 1
        if rows["renamed"] == before:
            return table
        ids = pa.array([checked.id for checked in found], table.schema.field("id").type)
        return table.set_column(table.schema.get_field_index("id"), table.schema.field("id"), ids)

    def _rename(self, checked: Checked, suffix: str) -> bool:
        """Whether the row's id was taken; it has another one then."""
        taken = False
        while (row_id := hashlib.sha256(checked.id.encode()).digest()[:16]) in self._ids:
            checked.id += suffix
            taken = True
        self._ids.add(row_id)
        return taken

    def add(self, checked: Checked, source: int) -> dict[str, str] | None:
        """Count a row of a source; returns its line in the quarantine list if it is not kept."""
        self.summary.rows += 1
        rows = self.of_sources[source]
        if checked.reason:
            rows["bad"] += 1
            return self._refuse(checked, checked.reason, checked.detail)
        if checked.left_out:
            rows["left_out"] += 1
            return self._leave_out(checked, checked.left_out, "")
        if found := self._duplicates.find(checked):
            rows["duplicate"] += 1
            return self._leave_out(checked, *found)
        if found := self._leaks.find(checked):
            rows["leaked"] += 1
            return self._leave_out(checked, *found)
        rows["kept"] += 1
        rows["without_picture"] += not checked.image_hashes
        self._count(checked)
        return None

    def _refuse(self, checked: Checked, reason: str, detail: str) -> dict[str, str]:
        line = line_of(checked, reason, detail)
        self.summary.refuse(line)
        self.refused.setdefault(reason, line)
        return line

    def _leave_out(self, checked: Checked, reason: str, detail: str) -> dict[str, str]:
        self.left_out[reason] += 1
        line = line_of(checked, reason, detail)
        self.refused.setdefault(reason, line)
        return line

    def _count(self, checked: Checked) -> None:
        self._neutralised += checked.neutralised
        self._by_source[checked.source] += 1
        if len(checked.answer) <= TOP_ANSWER_CHARACTERS:
            self._answers[checked.answer] += 1
        for width, height in checked.sizes:
            self._widths[width] += 1
            self._heights[height] += 1
        self._prompt_characters[checked.prompt_characters] += 1
        self._answer_characters[checked.answer_characters] += 1
        self._pictures.add(checked)
        self._fingerprint.update(f"{checked.id}\n{checked.content}{checked.about}\n".encode())

    def manifest(
        self, seed: int, shards: list[Shard], choices_are: Sequence[ChoicesAre | None]
    ) -> Manifest:
        """The manifest of all rows counted, once all files are closed.

        Args:
            choices_are: how the answers of each source's rows with choices were read.
        """
        top = sorted(self._answers.items(), key=lambda item: (-item[1], item[0]))
        return Manifest(
            kind=self.kind,
            fingerprint=self._fingerprint.hexdigest(),
            sources=self._sources,
            seed=seed,
            rows=sum(self.rows_of_sources),
            rows_of_sources=self.rows_of_sources,
            of_sources=[
                SourceRows(**rows, choices_are=read)
                for rows, read in zip(self.of_sources, choices_are, strict=True)
            ],
            rows_by_source=dict(sorted(self._by_source.items())),
            quarantined=dict(sorted(self.summary.quarantined.items())),
            left_out=dict(sorted(self.left_out.items())),
            leaks={name: dict(rows) for name, rows in sorted(self._leaks.rows.items())},
            unchecked=self._leaks.unchecked,
            neutralised=self._neutralised,
            images=self._widths.total(),
            distinct_images=self._pictures.distinct,
            shared_images=self._pictures.shared,
            image_width=Spread.of(self._widths),
            image_height=Spread.of(self._heights),
            prompt_characters=Spread.of(self._prompt_characters),
            answer_characters=Spread.of(self._answer_characters),
            top_answers=top[:TOP_ANSWERS],
            shards=shards,
            pictures=self._pictures.file,
        )


class Examples:
    """A few rows spread over all of them, in one pass: every n-th, with n doubling as they come."""

    def __init__(self, count: int) -> None:
        self._limit = 2 * count
        self._kept: list[Row] = []
        self._step = 1
        self._seen = 0

    def offer(self, row: Callable[[], Row]) -> None:
        """The next row, as a function that gives it: few are asked for."""
        if self._seen % self._step == 0:
            self._kept.append(row())
            if len(self._kept) == self._limit:
                self._kept = self._kept[::2]
                self._step *= 2
        self._seen += 1

    @property
    def rows(self) -> list[Row]:
        count = self._limit // 2
        if len(self._kept) <= count:
            return self._kept
        return [self._kept[index * len(self._kept) // count] for index in range(count)]


class SourceExamples:
    """Examples of all rows, and two at least of every source that has so many."""

    def __init__(self, count: int, sources: int) -> None:
        self._all = Examples(count)
        self._each = [Examples(EACH) for _ in range(sources)]
        self._seen = 0

    def offer(self, source: int, row: Callable[[], Row]) -> None:
        """The next row, of a source, as a function that gives it: few are asked for."""
        number = self._seen
        self._seen += 1

        @cache
        def example() -> Row:
            return {"source": source, "number": number, "row": row()}

        self._all.offer(example)
        self._each[source].offer(example)

    @property
    def rows(self) -> list[list[Row]]:
        """Of every source its examples, in the order of its rows."""
        chosen = {one["number"]: one for one in self._all.rows}
        for source, examples in enumerate(self._each):
            there = sum(one["source"] == source for one in chosen.values())
            for one in examples.rows:
                if there < EACH and one["number"] not in chosen:
                    chosen[one["number"]] = one
                    there += 1
        found: list[list[Row]] = [[] for _ in self._each]
        for number in sorted(chosen):
            found[chosen[number]["source"]].append(chosen[number]["row"])
        return found
