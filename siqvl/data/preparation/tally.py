"""Count rows while they are merged, and decide which of them are kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

from siqvl.data.manifest import Manifest, Shard, Spread
from siqvl.data.preparation.checks import Checked
from siqvl.data.preparation.distinct_pictures import Leaks, PictureWriter
from siqvl.data.preparation.duplicates import Duplicates
from siqvl.data.preparation.pieces import Summary, line_of
from siqvl.data.schema import Row, RowKind
from siqvl.recipe import DataPrep, Source

TOP_ANSWERS = 20
#: Longer answers are not counted one by one: sentences hardly repeat, and would fill the memory.
TOP_ANSWER_CHARACTERS = 80


class Tally:
    """What the manifest says about the rows, in one pass over them.

    It keeps some hundred bytes a row (its id and content) and a picture, never texts or pixels.
    """

    def __init__(
        self,
        kind: RowKind,
        sources: list[Source],
        data: DataPrep,
        leaks: Leaks,
        pictures: PictureWriter,
    ) -> None:
        self.kind = kind
        self.summary = Summary()
        self.left_out: Counter[str] = Counter()
        self.refused: dict[str, dict[str, str]] = {}  # reason -> first line, left-out rows too
        self.rows_of_sources = [0] * len(sources)
        self._sources = sources
        self._leaks = leaks
        self._pictures = pictures
        # A score is over the published questions, so evaluation rows are all kept.
        level = "none" if kind is RowKind.EVALUATION else data.duplicates
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

    def add(self, checked: Checked, source: int) -> dict[str, str] | None:
        """Count a row of a source; returns its line in the quarantine list if it is not kept."""
        self.summary.rows += 1
        if checked.reason:
            return self._refuse(checked, checked.reason, checked.detail)
        if checked.left_out:
            return self._leave_out(checked, checked.left_out, "")
        row_id = hashlib.sha256(checked.id.encode()).digest()[:16]
        if row_id in self._ids:
            return self._refuse(checked, "id used twice", "")
        self._ids.add(row_id)
        if found := self._duplicates.find(checked) or self._leaks.find(checked):
            return self._leave_out(checked, *found)
        self.rows_of_sources[source] += 1
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

    def manifest(self, seed: int, shards: list[Shard]) -> Manifest:
        """The manifest of all rows counted, once all files are closed."""
        top = sorted(self._answers.items(), key=lambda item: (-item[1], item[0]))
        return Manifest(
            kind=self.kind,
            fingerprint=self._fingerprint.hexdigest(),
            sources=self._sources,
            seed=seed,
            rows=sum(self.rows_of_sources),
            rows_of_sources=self.rows_of_sources,
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
