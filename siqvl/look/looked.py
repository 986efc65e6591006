"""What was found by looking at a source: its layout, its rows, and what looks wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from siqvl.look.subjects import Subject


@dataclass(frozen=True)
class Column:
    """What the first rows hold in one published column.

    Attributes:
        filled: rows that hold anything in it.
        pictures: of these, values that are a picture or the name of one.
        stored: of the pictures, those that are in the table itself.
        documents: of the filled ones, texts that are a JSON object or list.
        sample: the first value, in short.
    """

    name: str
    filled: int
    pictures: int
    stored: int
    documents: int
    sample: str


@dataclass(frozen=True)
class Layout:
    """How a source is laid out, and what of it is read.

    Attributes:
        split: what is read; empty where the format has none.
        splits: split -> files, of all splits that there are; empty where that is not known.
        files: those that are read, relative to the source's folder; empty on the hub.
        size: published rows that were counted; all of them where `is_whole`.
        columns: of the first rows; empty where the format knows its own.
        mapping: canonical field -> what it is read from, as a reader would write it.
        unused: columns that no field is read from.
        choices_are: how answers of rows with choices are read; empty where no row has any.
        notes: what of all this is not certain, as it was not looked at.
    """

    split: str = ""
    splits: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    size: int = 0
    is_whole: bool = False
    columns: list[Column] = field(default_factory=list)
    mapping: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    choices_are: str = ""
    notes: list[str] = field(default_factory=list)

    def column(self, name: str) -> Column | None:
        """The published column of this name."""
        return next((one for one in self.columns if one.name == name), None)


@dataclass(frozen=True)
class Span:
    """Tokens that follow one another and are alike: of one picture, learnt, or read."""

    kind: str  # picture, learnt, read
    text: str
    tokens: int


@dataclass(frozen=True)
class Sequence:
    """One sequence as the model gets it; of a pair, the side that it ends with."""

    name: str
    spans: list[Span]
    tokens: int
    learnt: int


@dataclass(frozen=True)
class Example:
    """One row to be shown.

    Attributes:
        pictures: small copies as `data:` URIs.
        texts: who says what, with placeholders where pictures stand.
        sequences: token by token; empty without a tokenizer.
        about: further fields by name, such as the answers that count as right.
        wrong: why it is no good row, or why training leaves it out; empty where it is used.
    """

    id: str
    pictures: list[str]
    texts: list[tuple[str, str]]
    sequences: list[Sequence]
    about: list[tuple[str, str]]
    wrong: str


@dataclass(frozen=True)
class SeenRow:
    """What the rules ask of one row that was looked at; nothing of it is large.

    Attributes:
        left_out: why its source leaves it out on purpose.
        reason, detail: why preparation would quarantine it.
        content: digest of texts and pictures.
        pictures: digests of its pictures' pixels.
        texts: all that is said.
        tokens: of its longest sequence; 0 where nothing was encoded.
        not_trained: why training would leave it out.
    """

    id: str
    left_out: str = ""
    reason: str = ""
    detail: str = ""
    content: str = ""
    pictures: tuple[str, ...] = ()
    question: str = ""
    answer: str = ""
    choices: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    tokens: int = 0
    not_trained: str = ""

    @property
    def good(self) -> bool:
        return not self.reason and not self.left_out


@dataclass(frozen=True)
class Doubt:
    """Something that looks wrong: how much it matters, and a sentence with a number in it."""

    weight: int
    text: str


@dataclass
class Looked:
    """All that was found out about one source.

    Attributes:
        error: why it cannot be read at all; empty where it can.
        ended: whether these are all rows there are.
    """

    subject: Subject
    layout: Layout = field(default_factory=Layout)
    rows: list[SeenRow] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    error: str = ""
    ended: bool = False

    @property
    def good(self) -> list[SeenRow]:
        return [row for row in self.rows if row.good]

    @property
    def bad(self) -> list[SeenRow]:
        return [row for row in self.rows if row.reason]

    @property
    def left_out(self) -> list[SeenRow]:
        return [row for row in self.rows if row.left_out]
