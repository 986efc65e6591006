"""Sources of rows, and the section `data`: how rows are prepared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
)

from siqvl.recipe.section import Section, storable

Rating = Annotated[int, Field(ge=1, le=5)]
LeaveOut = Literal["none", "exact", "near"]
#: What an answer of a row with choices is: a choice itself, its letter, or its number from 0 or 1.
ChoicesAre = Literal["text", "letter", "index0", "index1"]
Scalar = bool | int | float | str


class MinRatings(Section):
    """The lowest of FineVision's ratings, 1 to 5, that a turn may have.

    Its authors rated every turn with a language model (arXiv:2510.17269).
    """

    relevance: Rating | None = Field(None, description="does the answer answer the question?")
    formatting: Rating | None = Field(None, description="is the text well formed?")
    visual_dependency: Rating | None = Field(None, description="does one have to look?")
    image_correspondence: Rating | None = Field(None, description="does it fit the picture?")


class Present(Section):
    """A condition of `where`: whether a column holds anything."""

    present: bool = Field(description="true: not null and not empty; false: null, empty, missing")


class Source(Section):
    """One published data set, or a part of it, whose rows are read."""

    LATER = (
        *("constants", "ask", "where", "choices_are", "pictures", "row_files", "sample"),
        "prompt_suffix",
    )

    kind: str = Field(description="adapter in siqvl/data/sources: shapes, easy_vqa, finevision, …")
    path: str | None = Field(
        None, description="hub id, folder or archive; ${VARIABLES} are taken from the environment"
    )
    subsets: list[str] = Field([], description="subsets of the data set; empty means all of them")
    split: str = Field("train", description="split of the data set")
    revision: str | None = Field(None, description="git revision of a hub data set")
    columns: dict[str, str | list[str] | None] = Field(
        {},
        description="for kind `table`: canonical field -> column of the published file, a pattern "
        "of columns such as images/{image_id}.png, a list of columns, or null for none",
    )
    constants: dict[str, str] = Field(
        {}, description="for kind `table`: canonical field -> a text that is the same in every row"
    )
    ask: dict[str, str] = Field(
        {},
        description="for kind `table`: column -> the question that it answers; a row for each",
    )
    where: dict[str, Annotated[Scalar | list[Scalar] | Present, BeforeValidator(storable)]] = Field(
        {},
        description="for tables: column -> the value, or one of the values, that a row has there",
    )
    choices_are: ChoicesAre | None = Field(
        None, description="for kind `table`: what the answers of rows with choices are; null = look"
    )
    pictures: str | None = Field(
        None, description="for tables: the folder in which their pictures lie; null = beside them"
    )
    row_files: bool = Field(
        False, description="for kind `table`: each .json file of the folder is one row"
    )
    prompt_suffix: str = Field(
        "", description="appended to every question, such as what a benchmark appends to its own"
    )
    sample: Literal["first", "random"] | None = Field(
        None, description="which rows `max_samples` takes; null = random where any can be had"
    )
    skip: int = Field(
        0, ge=0, description="rows to pass over first, such as those another stage trains on"
    )
    max_samples: PositiveInt | None = Field(None, description="rows to take at most")
    min_ratings: MinRatings = Field(
        MinRatings(), description="for kind `finevision`: turns rated lower are left out"
    )
    weight: float = Field(
        1.0, gt=0, description="times its rows count in one epoch: 2 twice, 0.5 every other one"
    )

    @property
    def label(self) -> str:
        """Return what it is called in a sentence."""
        return f"source `{self.kind}` ({self.path or 'no path'})"


class DataPrep(Section):
    """How rows are checked, deduplicated and written, for every stage and benchmark alike."""

    processes: PositiveInt = Field(1, description="processes that check and encode rows")
    rows_per_shard: PositiveInt = Field(5_000, description="rows in one parquet shard")
    max_image_pixels: PositiveInt = Field(
        50_000_000, description="larger images are quarantined as decompression bombs"
    )
    max_images: PositiveInt = Field(64, description="a row with more images is quarantined")
    max_characters: PositiveInt = Field(
        200_000, description="a row whose texts are longer together is quarantined"
    )
    max_quarantined: float = Field(
        0.02, ge=0, le=1, description="share of bad rows above which preparation fails"
    )
    duplicates: LeaveOut = Field(
        "exact", description="rows to leave out: same texts, and same or nearly the same pictures"
    )
    leaks: LeaveOut = Field(
        "exact", description="training rows to leave out: their picture is in a benchmark"
    )
    near: float = Field(
        3.0, gt=0, description="largest mean difference (0-255) of 8x8 thumbnails that look alike"
    )
    shards: PositiveInt = Field(1, description="Flyte tasks that prepare a stage side by side")
