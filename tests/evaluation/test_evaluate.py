"""An evaluation from prepared questions to stored scores."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.evaluation.answer import answer, prompt_item
from siqvl.evaluation.benchmarks import prepare_benchmarks
from siqvl.evaluation.evaluate import evaluate
from siqvl.evaluation.metrics import exact_match
from siqvl.evaluation.scores import Scores, stage_table
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Recipe, Stage


@pytest.fixture(scope="module")
def benchmarks(trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    prepare_benchmarks(trained.recipe, folder)
    return folder


def test_scores_are_the_mean_of_the_stored_predictions(
    trained, benchmarks: Path, tmp_path: Path
) -> None:
    checkpoint = trained.checkpoint(Stage.VQA_SFT)
    returned = evaluate(
        trained.recipe, checkpoint=checkpoint, data=benchmarks, out=tmp_path / "report"
    )
    stored = Scores.read(tmp_path / "report")
    assert stored == returned
    rows = pq.read_table(tmp_path / "report" / "predictions.parquet").to_pylist()
    (score,) = stored.scores
    assert len(rows) == score.questions == 12
    for row in rows:
        assert row["correct"] == exact_match(row["answer"], row["answers"])
        assert row["blind_correct"] == exact_match(row["blind_answer"], row["answers"])
    assert score.accuracy == sum(row["correct"] for row in rows) / 12
    assert score.blind == sum(row["blind_correct"] for row in rows) / 12
    assert score.interval[0] <= score.accuracy <= score.interval[1]
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 12
    assert "http" not in page, "the page must not fetch anything"
    assert "vqa_sft" in stage_table([stored])


def test_the_batch_changes_no_answer_and_blind_prompts_hold_no_image(
    trained, benchmarks: Path
) -> None:
    model, processor = load_checkpoint(trained.checkpoint(Stage.VQA_SFT))
    dataset, _ = load_prepared(benchmarks / "vqa", RowKind.EVALUATION)
    common = {"max_new_tokens": 5, "title": "test"}
    together = answer(model, processor, dataset, batch_size=12, **common)
    assert answer(model, processor, dataset, batch_size=1, **common) == together
    assert answer(model, processor, dataset, batch_size=5, **common) == together
    seen = prompt_item(dataset[0], processor, "", blind=False)
    blind = prompt_item(dataset[0], processor, "", blind=True)
    assert seen["input_ids"].count(processor.image_token_id) == processor.num_image_tokens
    assert blind["input_ids"].count(processor.image_token_id) == 0
    assert blind["images"] == []


def test_an_unprepared_benchmark_is_one_line(trained, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no benchmark `vqa`"):
        evaluate(
            trained.recipe,
            checkpoint=trained.checkpoint(Stage.VQA_SFT),
            data=tmp_path,
            out=tmp_path / "report",
        )
    assert not (tmp_path / "report").exists()


def test_a_stage_without_benchmarks_is_one_line(trained, benchmarks: Path, tmp_path: Path) -> None:
    content = trained.recipe.model_dump(mode="json")
    content["evaluation"]["benchmarks"][0]["stages"] = ["dpo"]
    with pytest.raises(UserError, match="scores no benchmark after stage `vqa_sft`"):
        evaluate(
            Recipe.model_validate(content),
            checkpoint=trained.checkpoint(Stage.VQA_SFT),
            data=benchmarks,
            out=tmp_path / "report",
        )
