"""Prepared rows keep the weight of their own source, wherever the recipe names it."""

import json
from pathlib import Path

import numpy as np
import pytest

from siqvl.data.encode import encode_dataset
from siqvl.data.manifest import Manifest
from siqvl.data.mixture import Mixture
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Source, Stage
from siqvl.training.prepared_sources import sources_of
from siqvl.training.stage import train_stage
from tests.training.changed_recipe import changed

STAGE = Stage.VQA_SFT


def table(folder: Path, name: str, answer: str, rows: int, **keys) -> Source:
    lines = [{"question": f"{name} {one}?", "answer": answer} for one in range(rows)]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Source(kind="table", path=str(path), **keys)


@pytest.fixture
def tables(tmp_path: Path) -> list[Source]:
    """Of 4, 6 and 2 rows; the first counts once, the second twice, the third four times."""
    return [
        table(tmp_path, "one", "red", 4),
        table(tmp_path, "two", "blue", 6, weight=2),
        table(tmp_path, "three", "green", 2, weight=4),
    ]


@pytest.fixture
def data(tmp_path: Path, trained, tables: list[Source]) -> Path:
    prepare(tables, RowKind.SFT, tmp_path / "data", data=trained.recipe.data, seed=0)
    return tmp_path / "data"


def with_sources(trained, sources: list[Source], stage: Stage = STAGE):
    return changed(trained.recipe, stage, sources=[one.model_dump(mode="json") for one in sources])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_rows_are_drawn_as_often_as_their_own_source_says(
    trained, tables, data: Path, order: tuple[int, ...]
) -> None:
    recipe = with_sources(trained, [tables[index] for index in order])
    dataset, manifest = load_prepared(data, RowKind.SFT)
    _, processor = load_checkpoint(trained.checkpoint(STAGE))
    encoded = encode_dataset(dataset, processor, kind=RowKind.SFT, max_length=500)
    found = sources_of(recipe.stage(STAGE), manifest)
    mixed = Mixture.of(encoded, found, manifest.rows_of_sources)
    items, times = np.unique(mixed.epoch(0), return_counts=True)
    drawn = {
        dataset[int(item)]["completion"][0]["content"]: int(count)
        for item, count in zip(items, times, strict=True)
    }
    assert drawn == {"red": 1, "blue": 2, "green": 4}
    assert len(items) == 12


def test_equal_sources_are_told_apart_by_their_order(trained, tables) -> None:
    twice = [tables[0], tables[0].model_copy(update={"weight": 3.0})]
    manifest = Manifest.model_construct(sources=[tables[0], tables[0]])
    assert sources_of(with_sources(trained, twice).stage(STAGE), manifest) == twice


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a, b, c: [a, b], "has rows of 3 sources, but the recipe's stage names 2"),
        (
            lambda a, b, c: [a, b, c.model_copy(update={"max_samples": 1})],
            r"was prepared from source `table` \(.*three.jsonl\) with `max_samples` null, but the "
            "recipe says 1",
        ),
        (
            lambda a, b, c: [a, b, c.model_copy(update={"kind": "llava"})],
            r"has rows of source `table` \(.*three.jsonl\), which is not among the sources",
        ),
        (lambda a, b, c: [a, b, b], r"has rows of source `table` \(.*three.jsonl\), which is not"),
    ],
    ids=["fewer", "other rows", "another", "one of them twice"],
)
def test_rows_of_other_sources_are_refused_before_anything_starts(
    trained, tables, data: Path, tmp_path: Path, change, told: str
) -> None:
    recipe = with_sources(trained, change(*tables))
    with pytest.raises(UserError, match=told):
        train_stage(
            STAGE,
            recipe,
            data=data,
            checkpoint=trained.parent(STAGE),
            output=tmp_path / "out",
        )


@pytest.mark.parametrize(
    ("key", "value", "was"), [("system_prompt", "Arr.", '""'), ("max_image_tokens", 9, "4")]
)
def test_a_model_that_is_not_the_checkpoints_is_refused_before_anything_starts(
    trained, tmp_path: Path, key: str, value: object, was: str
) -> None:
    """A checkpoint keeps its chat template and grid: the card would tell of what is not there."""
    recipe = trained.recipe.changed([f"model.{key}={value}"])
    told = rf"model\.{key} is {json.dumps(value)}, but the checkpoint .* was assembled with {was}"
    with pytest.raises(UserError, match=told):
        train_stage(
            STAGE,
            recipe,
            data=trained.data(STAGE),
            checkpoint=trained.parent(STAGE),
            output=tmp_path / "out",
        )
