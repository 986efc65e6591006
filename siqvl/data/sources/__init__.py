"""Where rows come from: one adapter per published format, found by the `kind` of a source.

Adapters of other packages are found through the entry-point group `siqvl.sources`: the entry's
name is the `kind`, its value a class that can be called without arguments.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import entry_points
from itertools import islice

from siqvl.data.schema import Row, RowKind, message
from siqvl.data.sources.base import Items, QuestionAdapter, SourceAdapter, Stream, label, resolve
from siqvl.data.sources.generated import Shapes
from siqvl.data.sources.hub.finevision import FineVision
from siqvl.data.sources.hub.llava import LLaVA
from siqvl.data.sources.hub.llava_cot import LLaVACoT
from siqvl.data.sources.hub.rlaif_v import RLAIFV
from siqvl.data.sources.hub.rlhf_v import RLHFV
from siqvl.data.sources.hub.scienceqa import ScienceQA
from siqvl.data.sources.official.a_okvqa import AOKVQA
from siqvl.data.sources.official.easy_vqa import EasyVQA
from siqvl.data.sources.official.gqa import GQA
from siqvl.data.sources.official.puzzlevqa import PuzzleVQA
from siqvl.data.sources.official.textvqa import TextVQA
from siqvl.data.sources.official.vlmevalkit import VLMEvalKit
from siqvl.data.sources.official.vqav2 import VQAv2
from siqvl.data.sources.reading.picture_marks import read_placed
from siqvl.data.sources.reading.published import TableAdapter
from siqvl.data.sources.state import pinned, state
from siqvl.data.sources.tables.table import Table
from siqvl.errors import UserError
from siqvl.recipe import ChoicesAre, MinRatings, Source

__all__ = [
    "SOURCES",
    "check",
    "choices_are",
    "first_unread",
    "pinned",
    "published_table",
    "questions",
    "read_as",
    "rows",
    "size",
    "state",
    "unread",
]

SOURCES: dict[str, SourceAdapter] = {
    "a_okvqa": AOKVQA(),
    "easy_vqa": EasyVQA(),
    "finevision": FineVision(),
    "gqa": GQA(),
    "llava": LLaVA(),
    "llava_cot": LLaVACoT(),
    "puzzlevqa": PuzzleVQA(),
    "rlaif_v": RLAIFV(),
    "rlhf_v": RLHFV(),
    "scienceqa": ScienceQA(),
    "shapes": Shapes(),
    "table": Table(),
    "textvqa": TextVQA(),
    "vlmevalkit": VLMEvalKit(),
    "vqav2": VQAv2(),
}

#: Keys that say how the columns of a table are read; other formats know their own.
TABLE_KEYS = ("columns", "constants", "ask", "where", "choices_are", "pictures", "row_files")


def check(source: Source, kind: RowKind) -> None:
    """Everything about a source that can be told before any work starts.

    Raises:
        UserError: unknown kind, subset or split, an unset variable in the path, nothing there, or
            a source that has no rows of this kind.
    """
    adapter = _adapter(source)
    if kind not in adapter.kinds:
        kinds = ", ".join(sorted(adapter.kinds))
        raise UserError(f"{label(source)} has no {kind} rows, only {kinds}")
    if source.min_ratings != MinRatings() and source.kind != "finevision":
        raise UserError(f"{label(source)}: only `finevision` has ratings; leave out `min_ratings`")
    if source.kind in SOURCES and source.kind != "table":
        for key in TABLE_KEYS:
            if getattr(source, key):
                raise UserError(
                    f"{label(source)} has columns of its own; leave out `{key}`, or take kind "
                    "`table`"
                )
    adapter.check(resolve(source), kind)


def rows(
    source: Source, kind: RowKind, seed: int, *, start: int = 0, stop: int | None = None
) -> Iterator[Row]:
    """Canonical rows of a source, `max_samples` of them at most.

    Where any row can be had at once (`Items`), those taken are a seeded choice in the published
    order; of a stream they are the first ones. `start` and `stop` cut a piece out of exactly this
    sequence, without reading what comes before it where the format allows.
    """
    for read in unread(source, kind, seed, start=start, stop=stop):
        yield read()


def questions(source: Source, seed: int) -> Iterator[Row]:
    """The evaluation rows of a source, for who reads only their texts.

    Pictures are neither drawn nor read where the adapter can do without.
    """
    adapter = _adapter(source)
    if not isinstance(adapter, QuestionAdapter):
        yield from rows(source, RowKind.EVALUATION, seed)
        return
    for read in _taken(adapter.questions(resolve(source), seed), source, seed, 0, None):
        yield _asked(read, source.prompt_suffix)


def unread(
    source: Source, kind: RowKind, seed: int, *, start: int = 0, stop: int | None = None
) -> Iterator[Callable[[], Row]]:
    """What `rows` gives, each row read when it is called: one that is passed over costs little.

    Whatever the adapter, marks of pictures are counted, and brought into one form.
    """
    found = _adapter(source).rows(resolve(source), kind, seed)
    for read in _taken(found, source, seed, start, stop):
        yield partial(_asked, read, source.prompt_suffix)


def first_unread(
    source: Source, kind: RowKind, seed: int, *, rows: int, through: int
) -> Iterator[Callable[[], Row]]:
    """The first rows that `unread` gives, soon, however large the source is.

    Of a stream they are the first ones, whatever `sample` says: a choice takes the number of rows.

    Args:
        rows: how many, at most.
        through: published rows of a subset of a table that are looked through for those that
            `where` asks for, and for how answers of rows with choices are read.
    """
    adapter, resolved = _adapter(source), resolve(source)
    found: Items | Stream | Iterator[Row]
    if isinstance(adapter, TableAdapter):
        found = adapter.read(resolved, kind, pictured=True, through=through)
    else:
        found = adapter.rows(resolved, kind, seed)
    if not isinstance(found, Items):
        source = source.model_copy(update={"sample": None})
    for read in _taken(found, source, seed, 0, rows):
        yield partial(_asked, read, source.prompt_suffix)


def _asked(read: Callable[[], Row], suffix: str) -> Row:
    """A row with a source's `prompt_suffix` behind its question, the one that is answered."""
    row = read_placed(read)
    if not suffix:
        return row
    if "prompt" not in row:
        return row | {"question": row["question"] + suffix}
    *before, last = row["prompt"]
    return row | {"prompt": [*before, message(last["role"], last["content"] + suffix)]}


def published_table(source: Source) -> Source | None:
    """The published table that a source is read from; None where it is no table."""
    adapter = _adapter(source)
    return adapter.published(resolve(source)) if isinstance(adapter, TableAdapter) else None


def _taken(
    found: Items | Stream | Iterator[Row], source: Source, seed: int, start: int, stop: int | None
) -> Iterator[Callable[[], Row]]:
    """The rows that `skip` and `max_samples` leave, from number `start` to `stop` of these."""
    if source.max_samples is not None:
        stop = source.max_samples if stop is None else min(stop, source.max_samples)
    if isinstance(found, Items):
        for index in _chosen(len(found), source, seed)[start:stop]:
            yield partial(found.build, index)
        return
    if source.sample == "random":
        yield from _random(found, source, seed, start, stop)
        return
    start, stop = start + source.skip, None if stop is None else stop + source.skip
    if isinstance(found, Stream):
        yield from islice(found.unread, start, stop)
    else:
        for row in islice(found, start, stop):
            yield partial(_as_it_is, row)


def _random(
    found: Stream | Iterator[Row], source: Source, seed: int, start: int, stop: int | None
) -> Iterator[Callable[[], Row]]:
    """A seeded choice of the rows of a stream whose size is known, in published order."""
    size = found.size() if isinstance(found, Stream) else None
    if not isinstance(found, Stream) or size is None:
        raise UserError(
            f"{label(source)}: how many rows {source.path} has is not known before they are all "
            "read, so `sample: random` cannot choose; leave it out, or give a local folder"
        )
    chosen = iter(_chosen(size, source, seed)[start:stop])
    wanted = next(chosen, None)
    for number, read in enumerate(found.unread):
        if wanted is None:
            return
        if number == wanted:
            wanted = next(chosen, None)
            yield read


def _as_it_is(row: Row) -> Row:
    return row


def size(source: Source, kind: RowKind, seed: int) -> int | None:
    """The number of rows that `rows` gives; None where only reading them all would tell."""
    found = _adapter(source).rows(resolve(source), kind, seed)
    known: int | None = None
    if isinstance(found, Items):
        known = len(found)
    elif isinstance(found, Stream):
        known = found.size()
    if known is None:
        return None
    known = max(0, known - source.skip)
    return known if source.max_samples is None else min(known, source.max_samples)


def choices_are(source: Source, through: int | None = None) -> ChoicesAre | None:
    """How the answers of a source's rows with choices are read; None where it has no such rows.

    Where the recipe does not say it, all of its rows are looked at.

    Args:
        through: rows of a subset that are looked at, at most; None for all, as preparation does.

    Raises:
        UserError: they can be read in two ways.
    """
    adapter = _adapter(source)
    return adapter.choices_are(resolve(source), through) if isinstance(adapter, Table) else None


def read_as(source: Source, choices_are: ChoicesAre | None) -> Source:
    """The source with what was found out about its rows, which then need not be looked at again."""
    if not isinstance(_adapter(source), Table):
        return source
    return source.model_copy(update={"choices_are": choices_are or "text"})


def _chosen(size: int, source: Source, seed: int) -> Sequence[int]:
    """Indices of the rows to take, in published order."""
    if not source.skip and (source.max_samples is None or source.max_samples >= size):
        return range(size)
    if source.sample == "first":
        stop = None if source.max_samples is None else source.skip + source.max_samples
        return range(size)[source.skip : stop]
    rng = random.Random(f"{seed}/{source.kind}/{source.split}")
    # one order of all rows, so that what one source skips is what another one has taken
    order = rng.sample(range(size), size)
    stop = None if source.max_samples is None else source.skip + source.max_samples
    return sorted(order[source.skip : stop])


def _adapter(source: Source) -> SourceAdapter:
    if source.kind in SOURCES:
        return SOURCES[source.kind]
    plugins = {entry.name: entry for entry in entry_points(group="siqvl.sources")}
    if source.kind in plugins:
        return plugins[source.kind].load()()
    known = ", ".join(sorted({*SOURCES, *plugins}))
    raise UserError(f"unknown source kind `{source.kind}`; known kinds: {known}")
