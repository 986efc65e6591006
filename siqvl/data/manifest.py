"""The manifest of prepared data: enough to judge it without reading a shard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from siqvl.data.schema import SCHEMA_VERSION, RowKind
from siqvl.errors import UserError
from siqvl.recipe import ChoicesAre, Source
from siqvl.stored import Stored

FILE_NAME = "manifest.json"
BARS = 24  # of a histogram


class Shard(Stored):
    """One parquet file."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Spread(Stored):
    """Statistics of a whole number over the rows (or images)."""

    count: int
    total: int
    minimum: int
    mean: float
    median: int
    p95: int
    maximum: int
    bins: list[tuple[int, int, int]]  # first and last value of a bar, and how many fall into it

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Spread | None:
        """The spread of some values, given how often each occurs; None of none."""
        if not counts:
            return None
        values, count = sorted(counts), sum(counts.values())
        total = sum(value * times for value, times in counts.items())
        return cls(
            count=count,
            total=total,
            minimum=values[0],
            mean=round(total / count, 3),
            median=_ranked(values, counts, count // 2),
            p95=_ranked(values, counts, min(count - 1, int(count * 0.95))),
            maximum=values[-1],
            bins=_bins(values, counts, _ranked(values, counts, min(count - 1, int(count * 0.99)))),
        )


def _ranked(values: list[int], counts: Mapping[int, int], rank: int) -> int:
    """The value at a place of the sorted series (0: the smallest)."""
    for value in values:
        rank -= counts[value]
        if rank < 0:
            return value
    raise IndexError(rank)


def _bins(values: list[int], counts: Mapping[int, int], p99: int) -> list[tuple[int, int, int]]:
    """At most BARS bars of equal width up to the 99th percentile; one more for what is above."""
    low = values[0]
    width = (p99 - low) // BARS + 1
    heights = [0] * ((p99 - low) // width + 1)
    above = 0
    for value in values:
        place = (value - low) // width
        if place < len(heights):
            heights[place] += counts[value]
        else:
            above += counts[value]
    edges = [low + place * width for place in range(len(heights) + 1)]
    bins = [(edges[i], edges[i + 1] - 1, height) for i, height in enumerate(heights)]
    return [*bins, (edges[-1], values[-1], above)] if above else bins


class SourceRows(Stored):
    """What became of the rows of one entry of a recipe's `sources`."""

    read: int = 0
    kept: int = 0
    bad: int = 0
    duplicate: int = 0  # near ones too
    leaked: int = 0  # left out, as a benchmark has their picture
    left_out: int = 0  # otherwise, by the source itself
    without_picture: int = 0  # of those kept
    choices_are: ChoicesAre | None = None  # what answers of rows with choices are; None: no such
    renamed: int = 0  # whose id an earlier row had; see `siqvl.data.preparation.tally`


class Manifest(Stored):
    """What is in a folder of prepared data."""

    schema_version: int = SCHEMA_VERSION
    kind: RowKind
    fingerprint: str  # sha256 of the content, the same for any shard size and number of processes
    sources: list[Source]
    seed: int
    rows: int
    rows_of_sources: list[int]  # one for each of `sources`; their rows stand in this order
    of_sources: list[SourceRows] = Field([], description="one for each of `sources`")
    rows_by_source: dict[str, int]  # by the rows' column `source`
    quarantined: dict[str, int]  # bad rows: reason -> rows
    left_out: dict[str, int]  # good rows that are not wanted (duplicate, rated low, …), likewise
    leaks: dict[str, dict[str, int]]  # benchmark -> rows with its pictures: exact, near; both
    # kinds are counted, whichever of them are left out
    unchecked: list[str] = Field([], description="why not compared with benchmarks, or not all")
    neutralised: int  # literal image tokens broken up in texts
    images: int
    distinct_images: int
    shared_images: int  # distinct images that several rows use
    image_width: Spread | None
    image_height: Spread | None
    prompt_characters: Spread | None
    answer_characters: Spread | None
    top_answers: list[tuple[str, int]]
    shards: list[Shard]
    pictures: Shard  # images.parquet: each distinct image once

    def remarks(self) -> list[str]:
        """What one should know about single sources; a sentence each."""
        said = []
        for source, rows in zip(self.sources, self.of_sources, strict=False):
            if not rows.kept:
                said.append(f"of {source.label} no row is left of {rows.read:,} that were read")
            elif rows.without_picture == rows.kept:
                said.append(f"no row of {source.label} has a picture")
            if rows.renamed:
                said.append(
                    f"{rows.renamed:,} rows of {source.label} have the id of an earlier row, and "
                    "got a suffix"
                )
        return said

    def in_order(self, sources: Sequence[Source], what: str) -> list[Source]:
        """A recipe's sources in the order in which their rows stand here.

        They are known by all of their keys but `weight`, which decides nothing about the rows.

        Args:
            what: names the prepared data in a sentence.

        Raises:
            UserError: the rows are of other sources, or of more or fewer of them.
        """
        left, found = list(sources), []
        for stored in self.sources:
            index = next((i for i, one in enumerate(left) if _same_rows(one, stored)), None)
            if index is None:
                raise UserError(f"{what} {_other_source(stored, left)}")
            found.append(left.pop(index))
        if left:
            raise UserError(
                f"{what} has no rows of {left[0].label}, which the recipe names; prepare it with "
                "this recipe"
            )
        return found

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder.

        Raises:
            UserError: there is none, or it was not written by this version of the schema.
        """
        file = folder / FILE_NAME
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist; prepare the data first (task data_prep)")
        if not file.is_file():
            raise UserError(
                f"{folder} holds no prepared data ({FILE_NAME} is missing); prepare it first (task "
                "data_prep)"
            )
        text = file.read_text(encoding="utf-8")
        version = _version(text)  # first: another version has other keys
        if version is not None and version != SCHEMA_VERSION:
            raise UserError(
                f"{file} has schema version {version}, this code reads {SCHEMA_VERSION}; prepare "
                "the data again"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            complaint = error.errors()[0]
            key = ".".join(map(str, complaint["loc"]))
            said = f"{key}: {complaint['msg']}" if key else complaint["msg"]
            raise UserError(f"{file} is damaged: {said}") from None


def _same_rows(one: Source, other: Source) -> bool:
    return one.model_copy(update={"weight": other.weight}) == other


def _other_source(stored: Source, left: Sequence[Source]) -> str:
    """What to say of rows that no source of the recipe gives; the one that is closest is named."""
    alike = [one for one in left if (one.kind, one.path) == (stored.kind, stored.path)]
    if not alike:
        return (
            f"has rows of {stored.label}, which is not among the sources that the recipe names "
            "for them; prepare it with this recipe"
        )
    prepared, wanted = stored.model_dump(mode="json"), alike[0].model_dump(mode="json")
    names = (name for name in type(stored).model_fields if name != "weight")
    key = next(name for name in names if prepared.get(name) != wanted.get(name))
    return (
        f"was prepared from {stored.label} with `{key}` {json.dumps(prepared.get(key))}, but the "
        f"recipe says {json.dumps(wanted.get(key))}; prepare it with this recipe"
    )


def _version(text: str) -> object:
    """The schema version a manifest says it has; None if it says none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found.get("schema_version") if isinstance(found, dict) else None
