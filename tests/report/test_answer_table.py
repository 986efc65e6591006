"""The answers of an evaluation, with their pictures, as MLflow reads them."""

from pathlib import Path

import pytest
from PIL import Image, ImageChops

from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.evaluation.scoring.predictions import read_predictions
from siqvl.report.answer_table import keep_answers
from siqvl.tracking.runs import client, start_run
from siqvl.tracking.sample_table import TABLE
from tests.made_pipeline import Made


def test_questions_pictures_and_answers_are_the_evaluations(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a sqlite store keeps its artifacts in ./mlruns
    content = made.recipe.model_dump(mode="json")
    content["tracking"] |= {"experiment": "test", "uri": f"sqlite:///{tmp_path}/mlflow.db"}
    log = start_run(type(made.recipe).model_validate(content), "evaluation")
    report = made.reports[-1]  # of the last stage, which answers four benchmarks and pairs
    keep_answers(log, report, made.benchmarks, 8)
    assert log.flush()
    store = client(log.uri)
    table = store.load_table("1", TABLE, run_ids=[log.run_id])
    assert len(table) == 8
    assert {sample.partition("/")[0] for sample in table["sample"]} == {
        *("vqa", "vqa-heldout", "multistep-direct", "multistep-reasoned")
    }
    said = {
        (row["benchmark"], row["id"]): row
        for row in read_predictions(report).to_pylist()
        if row["player"] == "picture"
    }
    for row in table.itertuples():
        benchmark, _, id = row.sample.partition("/")
        prediction = said[benchmark, id]
        assert (row.question, row.answer) == (prediction["question"], prediction["generation"])
        assert row.gold == prediction["answers"][0]
        path = store.download_artifacts(log.run_id, row.picture["filepath"], str(tmp_path))
        rows, _ = load_prepared(made.benchmarks / benchmark, RowKind.EVALUATION, verify=False)
        picture = rows[rows["id"].index(id)]["images"][0].convert("RGB")
        assert ImageChops.difference(Image.open(path), picture).getbbox() is None


def test_no_questions_are_no_table(made: Made) -> None:
    keep_answers(None, made.reports[-1], made.benchmarks, 0)  # nothing is logged
