"""What looks wrong in a source: each rule gives one sentence with a number in it, or none.

A rule is about mistakes that people make with their data, and keeps still about data that is well:
better a mistake that is not noticed than a list that nobody reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from siqvl.data.schema import RowKind
from siqvl.look.column_doubts import columns_doubts
from siqvl.look.looked import Doubt, Looked, SeenRow
from siqvl.look.subjects import Use
from siqvl.look.text_doubts import texts_doubts

MOST = 3  # sentences that are shown at once
FEW = 5  # rows below which nothing is told of all rows being alike
SHOWN = 160  # characters of a detail
TESTS = frozenset({"test", "testdev", "challenge", "heldout"})
#: How reasons of bad rows are told, and how much they matter.
MISSING_PICTURE, MARKS = "no picture at ", "marks in its text"


def doubts_of(looked: Looked) -> list[Doubt]:
    """All that looks wrong in one source, what matters most first."""
    if looked.error:
        return [Doubt(120, f"It cannot be prepared: {looked.error}.")]
    rules: list[Callable[[Looked], Iterator[Doubt]]] = [
        _no_rows,
        _bad_rows,
        _left_out,
        _held_out_split,
        _not_trained,
        _same_answers,
        _repeated,
        columns_doubts,
        texts_doubts,
    ]
    found = [doubt for rule in rules for doubt in rule(looked)]
    return sorted(found, key=lambda doubt: -doubt.weight)


def shared_pictures(all_looked: Sequence[Looked]) -> None:
    """Add to each source that is trained on how many of its pictures a benchmark shows."""
    benchmarks: dict[str, str] = {}
    for looked in all_looked:
        if looked.subject.use is Use.BENCHMARK:
            benchmarks |= {
                picture: looked.subject.title for row in looked.good for picture in row.pictures
            }
    for looked in all_looked:
        if looked.subject.use is not Use.TRAINING:
            continue
        rows = [row for row in looked.good if not benchmarks.keys().isdisjoint(row.pictures)]
        if rows:
            picture = next(one for one in rows[0].pictures if one in benchmarks)
            kept = looked.subject.data.leaks == "none"
            then = "they are trained on, as `data.leaks` is none" if kept else "they are left out"
            text = (
                f"{share(len(rows), len(looked.good))} have a picture of {benchmarks[picture]}, "
                f"the first is {rows[0].id}; {then}."
            )
            looked.doubts.append(Doubt(70, text))
            looked.doubts.sort(key=lambda doubt: -doubt.weight)


def most_important(all_looked: Sequence[Looked]) -> list[tuple[Looked, Doubt]]:
    """The few sentences that matter most; of equals those of sources that come first."""
    found = [(looked, doubt) for looked in all_looked for doubt in looked.doubts]
    return sorted(found, key=lambda pair: -pair[1].weight)[:MOST]


def share(count: int, rows: int) -> str:
    """`3 of 50 rows`."""
    return f"{count:,} of {rows:,} rows"


def _no_rows(looked: Looked) -> Iterator[Doubt]:
    if looked.rows:
        return
    where = looked.subject.source.where
    why = "none of those looked through is one that `where` asks for" if where else "it is empty"
    yield Doubt(110, f"There are 0 rows: {why}.")


def _bad_rows(looked: Looked) -> Iterator[Doubt]:
    """The commonest reason says what preparation would do; of the others each has its sentence."""
    bad, rows = looked.bad, len(looked.rows)
    limit = looked.subject.data.max_quarantined
    groups: dict[str, list[SeenRow]] = {}
    for row in bad:
        groups.setdefault(_group(row), []).append(row)
    is_too_much = len(bad) > limit * rows
    for number, group in enumerate(sorted(groups.values(), key=len, reverse=True)):
        text = _bad(group, rows)
        if is_too_much and not number:
            text += f" Preparation stops above {100 * limit:g} % of bad rows"
            text += f"; here {share(len(bad), rows)} are bad." if len(groups) > 1 else "."
        yield Doubt((100 if is_too_much else 55) - number, text)


def _group(row: SeenRow) -> str:
    for sign in (MISSING_PICTURE, MARKS):
        if sign in row.detail:
            return sign
    return row.reason


def _bad(group: list[SeenRow], rows: int) -> str:
    """The sentence about rows that are bad for one reason."""
    first, count = group[0], share(len(group), rows)
    detail = first.detail if len(first.detail) <= SHOWN else first.detail[:SHOWN] + "…"
    if MISSING_PICTURE in first.detail:
        name = detail.removeprefix(MISSING_PICTURE).removesuffix(", expected encoded bytes")
        return f"Pictures of {count} are named but not found: {name} is the first (row {first.id})."
    if MARKS in first.detail:
        return f"In {count} marks and pictures do not fit: {detail} (row {first.id})."
    if first.reason.startswith("empty "):
        return f"In {count} `{first.reason.removeprefix('empty ')}` is empty, first in {first.id}."
    said = f"{first.reason}: {detail}" if detail else first.reason
    return f"{count} are bad, the first is {first.id} ({said})."


def _left_out(looked: Looked) -> Iterator[Doubt]:
    """Rows that a source leaves out on purpose are fine, unless they are nearly all."""
    left_out = looked.left_out
    if 2 * len(left_out) > len(looked.rows):
        (reason, _), *_ = Counter(row.left_out for row in left_out).most_common()
        text = f"{share(len(left_out), len(looked.rows))} are left out on purpose: {reason}."
        yield Doubt(62, text)


def _held_out_split(looked: Looked) -> Iterator[Doubt]:
    subject, layout = looked.subject, looked.layout
    if subject.use is not Use.TRAINING:
        return
    is_validation = layout.split == "validation" and "train" in layout.splits
    if layout.split in TESTS or is_validation:
        files = f"{len(layout.files):,} files" if len(layout.files) != 1 else layout.files[0]
        of = f" ({files})" if layout.files else ""
        yield Doubt(
            75,
            f"All {len(looked.rows):,} rows{of} are of split `{layout.split}`, which is kept for "
            "evaluation, and would be trained on.",
        )


def _not_trained(looked: Looked) -> Iterator[Doubt]:
    """Good rows that training leaves out."""
    groups: dict[str, list[SeenRow]] = {}
    for row in looked.good:
        if row.not_trained:
            groups.setdefault(row.not_trained, []).append(row)
    stage = looked.subject.stage
    for reason, rows in groups.items():
        text = f"{share(len(rows), len(looked.good))} would not be trained on: {reason}"
        if "max_length" in reason and stage is not None:
            text += f" {stage.max_length}; the longest has {max(row.tokens for row in rows):,}"
        yield Doubt(65, f"{text}.")


def _same_answers(looked: Looked) -> Iterator[Doubt]:
    rows = looked.good
    if len(rows) >= FEW and len({row.answer for row in rows}) == 1:
        answer = rows[0].answer[:SHOWN]
        yield Doubt(60, f"All {len(rows):,} rows have the same answer, {answer!r}.")


def _repeated(looked: Looked) -> Iterator[Doubt]:
    if looked.subject.kind is RowKind.EVALUATION and looked.subject.stage is None:
        return  # the questions of a benchmark are all kept
    first: dict[str, str] = {}
    repeated = []
    for row in looked.good:
        if row.content in first:
            repeated.append(row)
        first.setdefault(row.content, row.id)
    if repeated:
        one = repeated[0]
        kept = looked.subject.data.duplicates == "none"
        then = "they are kept, as `data.duplicates` is none" if kept else "they are left out"
        yield Doubt(
            45,
            f"{share(len(repeated), len(looked.good))} repeat an earlier one, texts and pictures "
            f"(the first is {one.id}, equal to {first[one.content]}); {then}.",
        )
