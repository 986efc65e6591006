"""An evaluation from prepared questions to stored scores."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.evaluation.asking import predict
from siqvl.evaluation.benchmarks.prepare_benchmarks import read_baselines
from siqvl.evaluation.evaluate import answer_shard, evaluate, merge_answers
from siqvl.evaluation.scoring.predictions import read_predictions
from siqvl.evaluation.scoring.scores import Scores
from siqvl.recipe import Recipe, Stage
from tests.quick import children


@pytest.fixture(scope="module")
def report(
    asking: Recipe, rows: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "report"
    assert evaluate(asking, checkpoint=checkpoint, data=rows, out=out) == Scores.read(out)
    assert [path.name for path in out.parent.iterdir()] == ["report"], "answers were left behind"
    return out


def scores_of(report: Path, benchmark: str, player: str) -> list[float]:
    table = read_predictions(report, benchmark).to_pylist()
    return [row["score"] for row in table if row["player"] == player]


def test_scores_are_means_of_the_stored_predictions(report: Path) -> None:
    stored = Scores.read(report)
    assert [score.benchmark for score in stored.scores] == ["asked", "reasoned", "letters", "pairs"]
    assert not stored.random_tower
    assert [score.scorer for score in stored.scores] == [
        *("exact_match/1", "exact_match/1", "choice/2", "preference/1")
    ]
    assert {score.split for score in stored.scores} == {"test"}
    assert stored.scores[1].decoding == {
        "method": "greedy",
        "max_new_tokens": 24,
        "batch_size": 5,
    }
    assert stored.scores[1].prompt.count("<|image_pad|>") == 1
    assert "Think step by step" in stored.scores[1].prompt
    for score in stored.scores:
        assert score.questions == 12
        own = scores_of(report, score.benchmark, "picture")
        for player, result in score.players.items():
            values = scores_of(report, score.benchmark, player)
            assert len(values) == 12
            assert result.mean == pytest.approx(sum(values) / 12)
            assert result.interval[0] <= result.mean <= result.interval[1]
            if player == "picture":
                continue
            lead = score.lead[player]
            differences = [one - other for one, other in zip(own, values, strict=True)]
            assert lead.mean == pytest.approx(sum(differences) / 12)
            assert lead.interval[0] <= lead.mean <= lead.interval[1]
        assert score.lead.keys() == score.players.keys() - {"picture"}
        for name, kind in score.types.items():
            table = read_predictions(report, score.benchmark).to_pylist()
            values = [
                row["score"] for row in table if (row["type"], row["player"]) == (name, "picture")
            ]
            assert kind.questions == len(values)
            assert kind.players["picture"].mean == pytest.approx(np.mean(values))
        assert sum(kind.questions for kind in score.types.values()) == 12


def test_who_plays_is_who_can(report: Path) -> None:
    stored = {score.benchmark: score.players.keys() for score in Scores.read(report).scores}
    baselines = {"majority", "question_only", "random_choice"}
    both = {"picture", "no_picture", "other_picture"}
    assert stored["asked"] == both | baselines
    assert stored["reasoned"] == {"picture", "no_picture"} | (baselines - {"question_only"})
    assert stored["letters"] == both | (baselines - {"question_only"})
    assert stored["pairs"] == both


def test_predictions_say_what_was_asked_and_scored(
    report: Path, rows: Path, asking: Recipe
) -> None:
    dataset, _ = load_prepared(rows / "asked", RowKind.EVALUATION)
    table = read_predictions(report, "asked").to_pylist()
    first = dataset[0]
    for row in (row for row in table if row["id"] == first["id"]):
        assert row["question"] == first["question"]
        assert row["answers"] == first["answers"]
        assert row["choices"] == first["choices"]
        assert row["type"] == json.loads(first["meta"])["template"]
        assert row["margin"] is None
    for row in table:
        if row["player"] in {"picture", "no_picture", "other_picture"}:
            assert row["answer"] == row["generation"]
            assert row["score"] == float(row["answer"].lower() in row["answers"])
    baselines = read_baselines(rows, asking.evaluation.benchmarks[0]).to_pylist()
    stored = [row for row in table if row["player"] in {"majority", "question_only"}]
    expected = [row for row in baselines if row["player"] != "random_choice"]
    assert [(r["id"], r["answer"], r["score"]) for r in stored] == [
        (r["id"], r["answer"], r["score"]) for r in expected
    ]


def test_the_answer_of_a_chain_of_thought_comes_after_its_marker(
    asking: Recipe, report: Path
) -> None:
    table = read_predictions(report, "reasoned").to_pylist()
    written = [row for row in table if row["player"] == "picture"]
    (marker,) = {one.answer_marker for one in asking.evaluation.benchmarks} - {None}
    assert any(marker in row["generation"] for row in written)
    for row in written:
        _, found, rest = row["generation"].rpartition(marker)
        assert row["answer"] == (rest.strip().rstrip(".") if found else "")


def test_letters_and_pairs_are_scored_by_what_is_likelier(report: Path) -> None:
    for row in read_predictions(report, "letters").to_pylist():
        if row["player"] == "picture":
            chosen = row["choices"]["ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(row["generation"])]
            assert row["score"] == float(chosen in row["answers"])
    for row in read_predictions(report, "pairs").to_pylist():
        assert row["answers"] == row["choices"][:1]
        assert row["score"] == float(row["margin"] > 0)
        assert row["answer"] == row["choices"][row["margin"] < 0]


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_give_the_report_of_one(
    report: Path, asking: Recipe, rows: Path, checkpoint: Path, tmp_path: Path, shards: int
) -> None:
    inputs = {"checkpoint": checkpoint, "data": rows}
    folders = [tmp_path / f"{shard}" for shard in range(shards)]
    for shard, folder in enumerate(folders):
        answer_shard(asking, **inputs, out=folder, shard=shard, shards=shards)
    merge_answers(folders, asking, **inputs, out=tmp_path / "report")
    for name in ("predictions.parquet", "scores.json", "report.html"):
        assert (tmp_path / "report" / name).read_bytes() == (report / name).read_bytes()
    with pytest.raises(UserError, match="is missing; run all shards"):
        merge_answers(folders[1:], asking, **inputs, out=tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_answers_of_another_checkpoint_are_not_merged(
    trained, asking: Recipe, rows: Path, checkpoint: Path, tmp_path: Path
) -> None:
    answer_shard(asking, checkpoint=checkpoint, data=rows, out=tmp_path / "answers")
    with pytest.raises(UserError, match="holds no answers"):
        merge_answers(
            [tmp_path / "answers"],
            asking,
            checkpoint=trained.checkpoint(Stage.DPO),
            data=rows,
            out=tmp_path / "report",
        )


@pytest.mark.integration
def test_an_evaluation_that_was_killed_asks_only_what_is_left(
    report: Path, asking: Recipe, rows: Path, checkpoint: Path, tmp_path: Path, monkeypatch
) -> None:
    from siqvl.evaluation.asking.greedy_answers import Generation

    inputs = {"checkpoint": checkpoint, "data": rows, "out": tmp_path / "report"}
    answer, prompts = Generation.answer, []

    def counted(self, batch, pictures, told):
        if len(prompts) == 3:
            raise KeyboardInterrupt
        prompts.append(len(batch))
        return answer(self, batch, pictures, told)

    monkeypatch.setattr("siqvl.evaluation.asking.question_plan.BATCHES", 1)
    monkeypatch.setattr(Generation, "answer", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(asking, **inputs)
    assert not (tmp_path / "report").exists()
    again = []

    def recorded(self, batch, pictures, told):
        again.append((self.benchmark.name, len(batch)))
        return answer(self, batch, pictures, told)

    monkeypatch.setattr(Generation, "answer", recorded)
    evaluate(asking, **inputs)
    whole = []
    monkeypatch.setattr(
        Generation,
        "answer",
        lambda *a: whole.append((a[0].benchmark.name, len(a[1]))) or answer(*a),
    )
    evaluate(asking, **{**inputs, "out": tmp_path / "whole"})
    assert again == whole[3:]
    for name in ("predictions.parquet", "scores.json"):
        assert (tmp_path / "report" / name).read_bytes() == (report / name).read_bytes()


@pytest.mark.integration
def test_two_evaluations_write_one_report_at_once(
    report: Path, asking: Recipe, rows: Path, checkpoint: Path, tmp_path: Path, monkeypatch
) -> None:
    """The first is about to write answers when the second begins, and still is when that ends."""
    inputs = {"checkpoint": checkpoint, "data": rows, "out": tmp_path / "report"}
    write, exits = predict.write_outputs, []

    def meanwhile(path, answered) -> None:
        if not exits:
            exits.append(None)
            other = children.Process(target=evaluate, args=(asking,), kwargs=inputs)
            other.start()
            other.join()
            exits.append(other.exitcode)
            assert inputs["out"].is_dir()
        write(path, answered)

    monkeypatch.setattr(predict, "write_outputs", meanwhile)
    evaluate(asking, **inputs)
    assert exits == [None, 0]
    for name in ("predictions.parquet", "scores.json"):
        assert (tmp_path / "report" / name).read_bytes() == (report / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_the_page_shows_samples_and_fetches_nothing(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 24
    assert "http" not in page
    table = pq.read_table(report / "predictions.parquet").to_pylist()
    assert table[0]["question"] in page


def test_an_unprepared_benchmark_is_one_line(
    asking: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds no benchmark `asked`"):
        evaluate(asking, checkpoint=checkpoint, data=tmp_path, out=tmp_path / "report")
    assert not list(tmp_path.iterdir())


def test_a_stage_without_benchmarks_is_one_line(
    asking: Recipe, rows: Path, checkpoint: Path, tmp_path: Path
) -> None:
    content = asking.model_dump(mode="json")
    for benchmark in content["evaluation"]["benchmarks"]:
        benchmark["stages"] = ["dpo"]
    with pytest.raises(UserError, match="scores no benchmark after stage `cot_sft`"):
        evaluate(
            Recipe.model_validate(content),
            checkpoint=checkpoint,
            data=rows,
            out=tmp_path / "report",
        )
