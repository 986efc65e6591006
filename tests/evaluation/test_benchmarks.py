"""Prepared benchmarks: rows with the floors beside them."""

import json

from siqvl.evaluation.benchmarks import prepare_benchmarks, read_floors
from siqvl.recipe import Benchmark, Source


def write_table(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(kind="table", path=str(path))


def test_floors_are_learnt_from_the_training_rows_that_are_whole(tmp_path, small_recipe):
    questions = [
        {"question": "Which?", "answer": "red"},
        {"question": "Where?", "answer": "left"},
        {"question": "New?", "answer": "left"},
        {"question": "Newer?", "answer": "up"},
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
    recipe = small_recipe(tmp_path, evaluation={"benchmarks": [benchmark.model_dump(mode="json")]})
    prepare_benchmarks(recipe, tmp_path / "out")
    found = read_floors(tmp_path / "out", benchmark)
    assert found.majority == 0.5  # always `left`
    assert found.question_only == 0.75  # `red`, and `left` to everything else
    assert found.random_choice is None
    assert (tmp_path / "out" / "made" / "images.parquet").is_file()
