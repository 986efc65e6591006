"""Prepared benchmarks: rows with the guessers' answers beside them."""

import json
from pathlib import Path

import pytest

from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.evaluation.asking.greedy_answers import question_of
from siqvl.evaluation.benchmarks.prepare_benchmarks import prepare_benchmarks, read_baselines
from siqvl.evaluation.scoring.scorers import scorer
from siqvl.recipe import Benchmark, Source


def write_table(path: Path, rows: list[dict]) -> Source:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(kind="table", path=str(path))


@pytest.fixture
def prepared(tmp_path, small_recipe):
    """Prepare some benchmarks below the test's folder."""

    def run(*benchmarks: Benchmark) -> Path:
        listed = [benchmark.model_dump(mode="json") for benchmark in benchmarks]
        recipe = small_recipe(tmp_path, evaluation={"benchmarks": listed})
        prepare_benchmarks(recipe, tmp_path / "out")
        return tmp_path / "out"

    return run


def test_baselines_are_learnt_from_the_training_rows_that_are_whole(tmp_path, prepared):
    questions = [
        {"id": "1", "question": "Which?", "answer": "red"},
        {"id": "2", "question": "Where?", "answer": "left"},
        {"id": "3", "question": "New?", "answer": "left"},
        {"id": "4", "question": "Newer?", "answer": "up"},
    ]
    training = write_table(
        tmp_path / "training.jsonl",
        [
            *questions[:2],
            {"question": "Where?", "answer": "left"},
            {"question": "", "answer": "red"},
        ]
        + [{"question": "Whose?", "answer": None}] * 5,
    )
    with open(training.path, "a") as table:
        table.write('{"question": "torn\n')
    source = write_table(tmp_path / "questions.jsonl", questions)
    benchmark = Benchmark(name="made", source=source, training=training)
    out = prepared(benchmark)
    found = read_baselines(out, benchmark).to_pydict()
    ids = load_prepared(out / "made", RowKind.EVALUATION)[0]["id"]
    assert found == {
        "id": list(ids) * 2,
        "player": ["majority"] * 4 + ["question_only"] * 4,
        # `left` is learnt to be commonest, and said where the question is new
        "answer": ["left"] * 4 + ["red", "left", "left", "left"],
        "score": [0, 1, 1, 0, 1, 1, 1, 0],
    }
    assert (out / "made" / "images.parquet").is_file()


def test_baselines_are_scored_as_the_benchmark_is(tmp_path, prepared):
    answers = ["cat"] * 2 + ["dog"] * 8
    source = write_table(tmp_path / "asked.jsonl", [{"question": "What?", "answers": answers}])
    training = write_table(tmp_path / "learnt.jsonl", [{"question": "What?", "answer": "cat"}])
    benchmark = Benchmark(name="soft", source=source, training=training, scorer="vqav2")
    found = read_baselines(prepared(benchmark), benchmark)
    # two agree; without one of them (two ways) one does: (2 x 1/3 + 8 x 2/3) / 10
    assert found["score"].to_pylist() == [pytest.approx(0.6)] * 2


def test_baselines_of_another_scorer_or_training_set_are_not_taken_for_these(tmp_path, prepared):
    source = write_table(tmp_path / "asked.jsonl", [{"question": "What?", "answer": "cat"}])
    benchmark = Benchmark(name="made", source=source)
    out = prepared(benchmark)
    read_baselines(out, benchmark.model_copy(update={"max_new_tokens": 3}))
    for change in ({"scorer": "anls"}, {"training": source}):
        with pytest.raises(UserError, match="another scorer or `training` than benchmark `made`"):
            read_baselines(out, benchmark.model_copy(update=change))
    with pytest.raises(UserError, match="holds no benchmark `other`: prepare it"):
        read_baselines(out, benchmark.model_copy(update={"name": "other"}))


@pytest.mark.parametrize(
    ("offered", "asked", "message"),
    [
        (
            {"answer": "cat"},
            {"scorer": "choice"},
            "none of its questions has choices, which scorer `choice` needs",
        ),
        (
            {"answer": "cat"},
            {"letters": True, "method": "likelihood"},
            "none of its questions has choices, which `letters: true` needs",
        ),
        (
            {"answer": "no 1", "choices": [f"no {number}" for number in range(27)]},
            {"letters": True, "scorer": "choice"},
            "27 options are more than the alphabet has letters",
        ),
        ({"answer": "cat"}, {"scorer": "vqav2"}, "has one answer, but scorer `vqav2` counts"),
    ],
)
def test_a_scorer_that_the_rows_cannot_serve_is_refused_before_work_starts(
    offered, asked, message, tmp_path, prepared
):
    fine = write_table(tmp_path / "fine.jsonl", [{"question": "What?", "answer": "cat"}])
    source = write_table(tmp_path / "asked.jsonl", [{"question": "What?", **offered}])
    bad = Benchmark(name="bad", source=source, **asked)
    with pytest.raises(UserError) as error:
        prepared(Benchmark(name="fine", source=fine), bad)
    assert error.value.message.startswith("benchmark `bad`: ")
    assert message in error.value.message
    assert not (tmp_path / "out").exists()


def test_a_letter_that_is_written_can_only_be_read_by_choice(tmp_path, prepared):
    asked = {"question": "What?", "answer": "cat", "choices": ["cat", "dog"]}
    source = write_table(tmp_path / "asked.jsonl", [asked])
    with pytest.raises(UserError, match="`made`: with `letters: true` the model writes a letter"):
        prepared(Benchmark(name="made", source=source, letters=True))


@pytest.mark.parametrize("named", ["exact_match", "choice"])
def test_guessers_of_letters_may_always_take_the_same_place(named, tmp_path, prepared):
    rows = [
        {"question": "Which one?", "answer": right, "choices": ["cat", right]}
        for right in ("dog", "cow", "hen")
    ]
    source = write_table(tmp_path / "asked.jsonl", rows)
    asked = {"letters": True, "method": "likelihood", "scorer": named}
    benchmark = Benchmark(name="made", source=source, **asked)
    found = read_baselines(prepared(benchmark), benchmark).to_pydict()
    assert found["answer"] == ["B"] * 3 + [""] * 3
    assert found["score"] == [1.0] * 3 + [0.5] * 3


def test_questions_with_and_without_options_in_one_set(tmp_path, prepared):
    source = write_table(
        tmp_path / "asked.jsonl",
        [
            {"question": "Which?", "answer": "cat"},
            {"question": "What?", "answer": "cat", "choices": ["dog", "cat"]},
        ],
    )
    benchmark = Benchmark(name="made", source=source, letters=True, scorer="choice")
    found = read_baselines(prepared(benchmark), benchmark).to_pydict()
    assert (found["answer"], found["score"]) == (["cat"] * 2, [1.0] * 2)
    assert question_of({"question": "Which?", "choices": []}, benchmark) == "Which?"
    assert scorer("choice").score("Cat.", ["cat"], [], by_letter=True) == 1.0
    assert scorer("choice").score("B", ["cat"], [], by_letter=True) == 0.0
    with pytest.raises(UserError, match="question asked/train/0000000 has no choices"):
        prepared(benchmark.model_copy(update={"name": "likely", "method": "likelihood"}))


def test_preference_pairs_have_no_baselines_and_sampled_ones_are_left_for_later(tmp_path, prepared):
    shapes = Source(kind="shapes", subsets=["vqa"], split="test", max_samples=4)
    pairs = Benchmark(name="pairs", source=shapes, method="preference")
    sampled = Benchmark(name="sampled", source=shapes, method="preference", sampled=True)
    out = prepared(pairs, sampled)
    rows, _ = load_prepared(out / "pairs", RowKind.PREFERENCE)
    assert len(rows) == 4
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["pairs"]
    for benchmark in (pairs, sampled):
        assert len(read_baselines(out, benchmark)) == 0


def test_pictures_of_training_questions_are_not_drawn(monkeypatch, prepared):
    drawn = []
    from siqvl.data.sources import generated as shapes

    draw = shapes.draw
    monkeypatch.setattr(shapes, "draw", lambda *scene: drawn.append(1) or draw(*scene))
    world = {"kind": "shapes", "subsets": ["vqa"]}
    benchmark = Benchmark(
        name="vqa",
        source=Source(**world, split="test", max_samples=5),
        training=Source(**world, max_samples=300),
    )
    found = read_baselines(prepared(benchmark), benchmark)
    assert found["player"].to_pylist().count("question_only") == 5
    assert len(drawn) == 5
