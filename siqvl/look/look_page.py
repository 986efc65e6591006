"""The page of what was looked at, and the same in short for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from unicodedata import category

from siqvl.look.doubts import MOST, most_important
from siqvl.look.looked import Looked
from siqvl.page.render import render, shortened

FILES = 5  # that are named; of others it is told how many they are
LINE = 96  # characters of a text in a terminal


def render_look(what: str, all_looked: Sequence[Looked], no_tokens: str) -> str:
    """The text of the page.

    Args:
        what: the recipe or data set, as it was asked for.
        no_tokens: why no tokens are shown; empty where they are.
    """
    return render(
        "look/look_page.html.jinja",
        what=what,
        sources=[(looked, facts(looked)) for looked in all_looked],
        important=most_important(all_looked),
        doubts=sum(len(looked.doubts) for looked in all_looked),
        rows=counted(sum(len(looked.rows) for looked in all_looked), "row"),
        counted_sources=counted(len(all_looked), "source"),
        no_tokens=no_tokens,
    )


def facts(looked: Looked) -> list[tuple[str, str]]:
    """What is read of a source and how, by name."""
    source, layout = looked.subject.source, looked.layout
    found = [
        ("read as", f"{looked.subject.kind} rows, kind `{source.kind}`"),
        ("path", "" if looked.subject.title == source.path else source.path or "generated"),
        ("split", _split(looked)),
        ("files", _files(layout.files)),
        ("columns", ", ".join(_mapped(field, to) for field, to in layout.mapping.items())),
        ("not read", ", ".join(layout.unused)),
        ("choices are", layout.choices_are),
        ("rows", _rows(looked)),
        ("tokens", _tokens(looked)),
        *(("note", note) for note in layout.notes),
    ]
    return [(name, text) for name, text in found if text]


def _mapped(field: str, to: str) -> str:
    return field if field == to else f"{field} ← {to}"


def _split(looked: Looked) -> str:
    layout = looked.layout
    if layout.files and not layout.splits:
        is_said = layout.split != "train"
        return "all of the file" + (f", whose name says `{layout.split}`" if is_said else "")
    others = [
        f"{name} ({counted(count, 'file')})"
        for name, count in layout.splits.items()
        if name != layout.split
    ]
    if looked.error or not layout.split:
        return looked.subject.source.split
    return layout.split + (f"; others are {', '.join(others)}" if others else "")


def _files(files: list[str]) -> str:
    named = ", ".join(files[:FILES])
    return f"{named} and {len(files) - FILES:,} more" if len(files) > FILES else named


def counted(number: int, what: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _rows(looked: Looked) -> str:
    if looked.error:
        return ""
    counts = [f"{len(looked.good):,} good"]
    counts += [f"{len(looked.bad):,} bad"] * bool(looked.bad)
    counts += [f"{len(looked.left_out):,} left out"] * bool(looked.left_out)
    size = f"{looked.layout.size:,}" if looked.layout.size else ""
    if size and not looked.layout.is_whole:
        size = f"more than {size}"
    published = f"{size} published; " if size else ""
    which = "all" if looked.ended else "the first"
    return f"{published}{which} {len(looked.rows):,} looked at: {', '.join(counts)}"


def _tokens(looked: Looked) -> str:
    lengths = sorted(row.tokens for row in looked.good if row.tokens)
    if not lengths:
        return ""
    stage = looked.subject.stage
    limit = f", max_length is {stage.max_length:,}" if stage else ""
    middle = lengths[len(lengths) // 2]
    span = f"{lengths[0]:,} to {lengths[-1]:,} a row, median {middle:,}"
    return (span if lengths[0] < lengths[-1] else f"{middle:,} a row") + limit


def in_terminal(all_looked: Sequence[Looked]) -> Iterator[str]:
    """The lines that a terminal shows: every source in short, then what looks wrong."""
    for looked in all_looked:
        yield printable(looked.subject.title)
        for name, text in facts(looked):
            yield f"  {name:<12}{printable(text)}"
        yield from _first(looked)
        yield ""
    yield from _wrong(all_looked)


def _first(looked: Looked) -> Iterator[str]:
    """The first row that can be shown."""
    example = next((one for one in looked.examples if one.texts), None)
    if example is None:
        return
    yield f"  {'first row':<12}{printable(example.id)}"
    for who, text in [*example.texts, *example.about]:
        yield f"    {who:<10}{shortened(printable(text), LINE)}"


def _wrong(all_looked: Sequence[Looked]) -> Iterator[str]:
    important = most_important(all_looked)
    rows = sum(len(looked.rows) for looked in all_looked)
    if not important:
        yield f"Nothing looks wrong, as far as {counted(rows, 'row')} can tell."
        return
    yield "What looks wrong:"
    for looked, doubt in important:
        where = f"{looked.subject.title}: " if len(all_looked) > 1 else ""
        yield f"  {printable(where + doubt.text)}"
    more = sum(len(looked.doubts) for looked in all_looked) - MOST
    if more > 0:
        yield f"  … and {more:,} more on the page."


def printable(text: str) -> str:
    """A text on one line, without what would steer a terminal."""
    return " ".join("".join(" " if category(one)[0] == "C" else one for one in text).split())
