"""Flyte's cache sees changed data, and other libraries."""

from pathlib import Path
from typing import Any

import pytest

from siqvl.recipe import Recipe, Stage
from tasks import cache_keys
from tasks.cache_keys import (
    look_again,
    prepared_benchmarks,
    prepared_rows,
    sampled_pairs,
    scored,
    trained,
)
from tasks.default_recipe import ROOT

SFT = Stage.VQA_SFT


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "?", "answer": "a"}\n')
    return path


@pytest.fixture
def recipe(table: Path) -> Recipe:
    content: dict[str, Any] = Recipe.load(ROOT / "recipes" / "tiny.yaml").model_dump(mode="json")
    source = {"kind": "table", "path": str(table)}
    content["stages"][SFT]["sources"] = [source]
    content["stages"]["dpo"]["sampled"]["source"] = source
    content["evaluation"]["benchmarks"][0]["source"] = source
    look_again()
    return Recipe.model_validate(content)


def keys(recipe: Recipe) -> dict[str, str]:
    look_again()
    return {
        "rows": prepared_rows(recipe, SFT),
        "other rows": prepared_rows(recipe, Stage.COT_SFT),
        "benchmarks": prepared_benchmarks(recipe),
        "pairs": sampled_pairs(recipe),
        "training": trained(recipe, SFT),
        "scores": scored(recipe),
    }


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name in one if one[name] != other[name]}


def test_new_rows_of_a_source_are_seen(recipe: Recipe, table: Path) -> None:
    before = keys(recipe)
    assert keys(recipe) == before
    with table.open("a") as more:
        more.write('{"question": "?", "answer": "b"}\n')
    assert differing(keys(recipe), before) == {"rows", "benchmarks", "pairs"}


def test_a_source_is_asked_for_once(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(cache_keys.sources, "state", lambda source: asked.append(source) or "state")
    keys(recipe)
    assert len(asked) == len({source.model_dump_json() for source in asked})


@pytest.mark.parametrize(
    ("library", "seen"),
    [
        ("torch", {"training", "scores", "pairs"}),
        ("transformers", {"training", "scores", "pairs"}),
        ("pillow", {"rows", "other rows", "benchmarks", "pairs"}),
    ],
)
def test_other_libraries_are_seen(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, library: str, seen: set[str]
) -> None:
    before, version = keys(recipe), cache_keys.version
    monkeypatch.setattr(
        cache_keys, "version", lambda name: "99" if name == library else version(name)
    )
    assert differing(keys(recipe), before) == seen


@pytest.mark.parametrize(
    ("changes", "seen"), [([], False), ([f"stages.{SFT}.adapter.rank=4"], True)]
)
def test_a_stage_with_adapters_sees_another_peft(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, changes: list[str], seen: bool
) -> None:
    """It draws A, and its layers compute where inputs are dropped."""
    changed, version = recipe.changed(changes), cache_keys.version
    before = trained(changed, SFT)
    monkeypatch.setattr(
        cache_keys, "version", lambda name: "99" if name == "peft" else version(name)
    )
    assert (trained(changed, SFT) != before) is seen
