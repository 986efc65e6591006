"""The manifest of prepared data: enough to judge it without reading a shard."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from siqvl.data.schema import SCHEMA_VERSION, RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source

FILE_NAME = "manifest.json"


class Part(BaseModel):
    """Base of all parts: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Shard(Part):
    """One parquet file below `shards/`."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Spread(Part):
    """Statistics of a number over the rows (or images)."""

    count: int
    total: int
    minimum: int
    mean: float
    median: int
    p95: int
    maximum: int

    @classmethod
    def of(cls, values: list[int]) -> Spread | None:
        """The spread of some values; None of none."""
        if not values:
            return None
        ordered = sorted(values)
        return cls(
            count=len(ordered),
            total=sum(ordered),
            minimum=ordered[0],
            mean=round(sum(ordered) / len(ordered), 3),
            median=ordered[len(ordered) // 2],
            p95=ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))],
            maximum=ordered[-1],
        )


class Manifest(Part):
    """What is in a folder of prepared data."""

    schema_version: int = SCHEMA_VERSION
    kind: RowKind
    fingerprint: str  # sha256 of the content, the same for any shard size and number of processes
    sources: list[Source]
    seed: int
    rows: int
    rows_by_source: dict[str, int]
    quarantined: dict[str, int]  # reason -> rows
    duplicates: int  # rows left out because another one has the same content
    neutralised: int  # literal image tokens broken up in texts
    images: int
    image_width: Spread | None
    image_height: Spread | None
    prompt_characters: Spread | None
    answer_characters: Spread | None
    top_answers: list[tuple[str, int]]
    shards: list[Shard]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder.

        Raises:
            UserError: there is none, or it was not written by this version of the schema.
        """
        file = folder / FILE_NAME
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist; run `siqvl prepare` to make it")
        if not file.is_file():
            raise UserError(
                f"{folder} holds no prepared data ({FILE_NAME} is missing); run `siqvl prepare`"
            )
        try:
            manifest = cls.model_validate_json(file.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise UserError(f"{file} is damaged: {explain_manifest(error)}") from None
        if manifest.schema_version != SCHEMA_VERSION:
            raise UserError(
                f"{file} has schema version {manifest.schema_version}, this code reads "
                f"{SCHEMA_VERSION}; prepare the data again"
            )
        return manifest


def explain_manifest(error: ValidationError) -> str:
    """The first complaint of pydantic, on one line."""
    item = error.errors()[0]
    key = ".".join(str(part) for part in item["loc"])
    return f"{key}: {item['msg']}" if key else str(item["msg"])
