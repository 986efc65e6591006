"""Count rows while they are prepared, and decide which are duplicates."""

from __future__ import annotations

import hashlib
from collections import Counter

from siqvl.data.checks import Checked
from siqvl.data.manifest import Manifest, Shard, Spread
from siqvl.data.schema import Row, RowKind
from siqvl.recipe import Source

TOP_ANSWERS = 20


class Tally:
    """What the manifest says about the rows, in one pass over them."""

    def __init__(self, kind: RowKind) -> None:
        self.kind = kind
        self.seen = 0
        self.duplicates = 0
        self.quarantined: Counter[str] = Counter()
        self.examples: dict[str, dict[str, str]] = {}  # reason -> first row refused for it
        self._neutralised = 0
        self._by_source: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._sizes: list[tuple[int, int]] = []
        self._prompt_characters: list[int] = []
        self._answer_characters: list[int] = []
        self._ids: set[bytes] = set()
        self._contents: set[bytes] = set()
        self._fingerprint = hashlib.sha256(kind.value.encode())

    def add(self, checked: Checked) -> dict[str, str] | None:
        """Count a row; returns its line in the quarantine list if it is not kept."""
        self.seen += 1
        if checked.row is None:
            return self._refuse(checked)
        row_id = hashlib.sha256(checked.id.encode()).digest()[:16]
        content = bytes.fromhex(checked.content)[:16]
        if row_id in self._ids:
            checked.reason, checked.detail = "id used twice", ""
            return self._refuse(checked)
        self._ids.add(row_id)
        # A score is over the published questions, so evaluation rows are all kept.
        if self.kind is not RowKind.EVALUATION:
            if content in self._contents:
                self.duplicates += 1
                return _line(checked, "duplicate")
            self._contents.add(content)
        self._count(checked)
        return None

    def _refuse(self, checked: Checked) -> dict[str, str]:
        self.quarantined[checked.reason] += 1
        line = _line(checked, checked.reason)
        self.examples.setdefault(checked.reason, line)
        return line

    def _count(self, checked: Checked) -> None:
        self._neutralised += checked.neutralised
        self._by_source[checked.source] += 1
        self._answers[checked.answer] += 1
        self._sizes += checked.sizes
        self._prompt_characters.append(checked.prompt_characters)
        self._answer_characters.append(checked.answer_characters)
        self._fingerprint.update(f"{checked.id}\n{checked.content}{checked.about}\n".encode())

    def manifest(self, sources: list[Source], seed: int, shards: list[Shard]) -> Manifest:
        """The manifest of all rows counted."""
        top = sorted(self._answers.items(), key=lambda item: (-item[1], item[0]))
        return Manifest(
            kind=self.kind,
            fingerprint=self._fingerprint.hexdigest(),
            sources=sources,
            seed=seed,
            rows=sum(self._by_source.values()),
            rows_by_source=dict(sorted(self._by_source.items())),
            quarantined=dict(sorted(self.quarantined.items())),
            duplicates=self.duplicates,
            neutralised=self._neutralised,
            images=len(self._sizes),
            image_width=Spread.of([width for width, _ in self._sizes]),
            image_height=Spread.of([height for _, height in self._sizes]),
            prompt_characters=Spread.of(self._prompt_characters),
            answer_characters=Spread.of(self._answer_characters),
            top_answers=[(answer[:200], count) for answer, count in top[:TOP_ANSWERS]],
            shards=shards,
        )


class Examples:
    """A few rows spread over all of them, in one pass: every n-th, with n doubling as they come."""

    def __init__(self, count: int) -> None:
        self._limit = 2 * count
        self._kept: list[Row] = []
        self._step = 1
        self._seen = 0

    def offer(self, row: Row) -> None:
        if self._seen % self._step == 0:
            self._kept.append(row)
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


def _line(checked: Checked, reason: str) -> dict[str, str]:
    return {
        "id": checked.id,
        "source": checked.source,
        "reason": reason,
        "detail": checked.detail,
    }
