"""Preparation as tasks: in one piece or side by side, with the benchmarks kept out."""

import html
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from flytekit import current_context
from flytekit.core.context_manager import FlyteContextManager

from siqvl.data.manifest import Manifest
from siqvl.errors import UserError
from siqvl.evaluation.benchmarks.benchmark_rows import load_questions
from siqvl.evaluation.benchmarks.prepare_benchmarks import read_baselines
from siqvl.recipe import Recipe
from tasks.contracts import PipelineRun, Preparation, PreparedData
from tasks.data_prep import data_prep
from tests.small_recipe import ROOT
from workflows.prepared_data import prepared_data

SHARED = {"kind": "shapes", "subsets": ["vqa"], "split": "test"}


@pytest.fixture
def build(
    tmp_path: Path, small_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Recipe]:
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns

    def build(**data: object) -> Recipe:
        content = small_recipe(tmp_path).model_dump(mode="json")
        content["data"] |= data
        content["stages"]["vqa_sft"]["sources"].append(SHARED | {"max_samples": 30})
        content["evaluation"]["benchmarks"][0]["source"] = SHARED | {"max_samples": 12}
        return Recipe.model_validate(content)

    return build


def files(folder: PreparedData) -> dict[str, bytes]:
    root = Path(folder.path)
    return {
        str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()
    }


def test_shards_side_by_side_give_the_rows_of_one_task(build: Callable[..., Recipe]) -> None:
    whole = data_prep(stage=Preparation.VQA_SFT, recipe=build(), run=PipelineRun(name="one"))
    split = prepared_data(
        stage=Preparation.VQA_SFT, recipe=build(shards=3), run=PipelineRun(name="three")
    )
    assert files(split) == files(whole)
    assert len(files(whole)) >= 4  # a shard, the manifest, the quarantine list, the report


def test_questions_that_are_trained_on_are_no_benchmark(
    build: Callable[..., Recipe],
) -> None:
    """Those of a benchmark are all kept; of these a benchmark's pictures and repeats are left out,
    although rows of either have the same columns."""
    content = build().model_dump(mode="json")
    whole = Recipe.load(ROOT / "recipes" / "rewards.yaml").model_dump(mode="json")
    twice = [{**SHARED, "max_samples": 30}, {**SHARED, "skip": 20, "max_samples": 20}]
    content["stages"]["rlvr"] = whole["stages"]["rlvr"] | {"sources": twice}
    recipe = Recipe.model_validate(content)
    found = Manifest.read(Path(data_prep(stage=Preparation.RLVR, recipe=recipe).path))
    assert found.leaks["vqa"]["exact"] == 12
    assert found.left_out["duplicate"] == 10
    assert found.rows == 30 + 20 - 12 - 10


def test_pictures_of_a_benchmark_are_left_out_of_training(build: Callable[..., Recipe]) -> None:
    """Scene i of a family and split is the same however many are drawn: 12 of 30 are shared."""
    benchmarks = data_prep(stage=Preparation.EVALUATION, recipe=build())
    for shards in (1, 2):
        data = prepared_data(
            stage=Preparation.VQA_SFT,
            recipe=build(shards=shards),
            run=PipelineRun(name=f"{shards}"),
            benchmarks=benchmarks,
        )
        manifest = Manifest.read(Path(data.path))
        assert manifest.left_out == {"picture of benchmark vqa": 12}
        assert manifest.rows_of_sources == [24, 18]


def alone(recipe: Recipe) -> Manifest:
    """Prepare a stage without naming benchmarks, as the README does."""
    out = data_prep.task_function(stage=Preparation.VQA_SFT, recipe=recipe)
    return Manifest.read(Path(out.path))


def evaluation(recipe: Recipe) -> Path:
    return Path(recipe.output_dir) / recipe.name / "single" / "data" / "evaluation"


def with_benchmark(recipe: Recipe, **changes: object) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["evaluation"]["benchmarks"][0] |= changes
    content["evaluation"]["champion_benchmark"] = None
    return Recipe.model_validate(content)


@pytest.mark.parametrize("shards", [1, 2])
def test_the_recipes_own_benchmarks_are_prepared_and_compared_with(
    build: Callable[..., Recipe], shards: int
) -> None:
    recipe = build(shards=shards)
    data = prepared_data(stage=Preparation.VQA_SFT, recipe=recipe)
    manifest = Manifest.read(Path(data.path))
    assert manifest.left_out == {"picture of benchmark vqa": 12}
    assert manifest.unchecked == []
    (benchmark,) = recipe.evaluation.benchmarks
    assert len(load_questions(benchmark, evaluation(recipe)).rows) == 12
    assert read_baselines(evaluation(recipe), benchmark).num_rows  # whole, to be scored on


def test_benchmarks_that_are_there_are_taken_as_long_as_they_are_the_recipes(
    build: Callable[..., Recipe],
) -> None:
    recipe = build()
    alone(recipe)
    file = evaluation(recipe) / "vqa" / "manifest.json"
    first = file.stat().st_ino
    alone(recipe)
    assert file.stat().st_ino == first
    pictures = file.with_name("images.parquet")
    pictures.write_bytes(pictures.read_bytes() + b"x")  # damaged
    assert alone(recipe).left_out == {"picture of benchmark vqa": 12}
    second = file.stat().st_ino
    assert second != first
    fewer = with_benchmark(recipe, source=SHARED | {"max_samples": 7})
    assert alone(fewer).left_out == {"picture of benchmark vqa": 7}
    assert file.stat().st_ino != second


def test_a_benchmark_that_left_the_recipe_keeps_no_row_out(build: Callable[..., Recipe]) -> None:
    recipe = build()
    benchmarks = data_prep.task_function(stage=Preparation.EVALUATION, recipe=recipe)
    renamed = with_benchmark(
        recipe, name="other", source=SHARED | {"split": "heldout", "max_samples": 12}
    )
    assert alone(renamed).left_out == {}
    assert Manifest.read(evaluation(recipe) / "vqa").rows == 12  # it is not for this to remove
    given = data_prep.task_function(
        stage=Preparation.VQA_SFT, recipe=renamed, benchmarks=benchmarks
    )
    assert Manifest.read(Path(given.path)).leaks == {"other": {"exact": 0, "near": 0}}
    data_prep.task_function(stage=Preparation.EVALUATION, recipe=renamed)
    assert [path.name for path in evaluation(recipe).iterdir() if path.is_dir()] == ["other"]


def test_given_benchmarks_are_those_of_the_recipe(build: Callable[..., Recipe]) -> None:
    recipe = build()
    benchmarks = data_prep.task_function(stage=Preparation.EVALUATION, recipe=recipe)
    for changes, told in (
        ({"name": "another"}, "holds no prepared benchmark `another` to compare"),
        ({"source": SHARED | {"max_samples": 5}}, "`max_samples` 12, but the recipe says 5"),
    ):
        with pytest.raises(UserError, match=told):
            data_prep.task_function(
                stage=Preparation.VQA_SFT,
                recipe=with_benchmark(recipe, **changes),
                benchmarks=benchmarks,
            )


@pytest.mark.parametrize(
    ("changes", "data", "told"),
    [
        (
            {"source": {"kind": "easy_vqa", "path": "not/here"}},
            {},
            "benchmark `vqa` cannot be prepared: .*not/here",
        ),
        ({}, {"leaks": "none"}, "`data.leaks` is none"),
        (
            {"method": "preference", "sampled": True, "stages": ["dpo"]},
            {},
            "the pairs of benchmark `vqa` are sampled after this",
        ),
    ],
    ids=["cannot be prepared", "switched off", "sampled later"],
)
def test_a_check_that_does_not_run_is_said_in_log_page_and_summary(
    build: Callable[..., Recipe],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    changes: dict,
    data: dict,
    told: str,
) -> None:
    recipe = with_benchmark(build(**data), **changes)
    with caplog.at_level(logging.WARNING):
        manifest = alone(recipe)
    assert manifest.rows == 54
    (reason,) = manifest.unchecked
    assert re.search(told, reason)
    page = (evaluation(recipe).parent / "vqa_sft" / "report.html").read_text()
    assert f"The check did not run: {reason}." in html.unescape(page)
    assert f"the check for pictures of benchmarks did not run: {reason}" in capsys.readouterr().out
    assert f"the check for pictures of benchmarks does not run: {reason}" in caplog.text


def test_the_deck_shows_the_report(build: Callable[..., Recipe]) -> None:
    context = FlyteContextManager.current_context()
    with FlyteContextManager.with_context(context.new_builder()):
        before = len(current_context().decks)
        out = data_prep.task_function(stage=Preparation.VQA_SFT, recipe=build())
        (deck,) = current_context().decks[before:]
    assert deck.name == "vqa_sft"
    assert (Path(out.path) / "report.html").read_text() in html.unescape(deck.html)
    assert not data_prep.disable_deck
