"""Preparation as tasks: in one piece or side by side, with the benchmarks kept out."""

import html
from collections.abc import Callable
from pathlib import Path

import pytest
from flytekit import current_context
from flytekit.core.context_manager import FlyteContextManager

from siqvl.data.manifest import Manifest
from siqvl.recipe import Recipe
from tasks.contracts import PipelineRun, Preparation, PreparedData
from tasks.data_prep import data_prep
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


def test_the_deck_shows_the_report(build: Callable[..., Recipe]) -> None:
    context = FlyteContextManager.current_context()
    with FlyteContextManager.with_context(context.new_builder()):
        before = len(current_context().decks)
        out = data_prep.task_function(stage=Preparation.VQA_SFT, recipe=build())
        (deck,) = current_context().decks[before:]
    assert deck.name == "vqa_sft"
    assert (Path(out.path) / "report.html").read_text() in html.unescape(deck.html)
    assert not data_prep.disable_deck
