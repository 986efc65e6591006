"""Each named benchmark: rows with the published columns, prepared, asked, answered and scored.

The columns are those of the cards on the hub; one card alone could be read here (MathVista's), the
others are as lmms-eval 0.7.3 reads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from siqvl.errors import UserError
from siqvl.evaluation.asking.greedy_answers import question_of, suffix_of
from siqvl.evaluation.asking.prompts import Output
from siqvl.evaluation.benchmarks.benchmark_rows import Questions, load_questions
from siqvl.evaluation.benchmarks.prepare_benchmarks import prepare_benchmarks, read_baselines
from siqvl.evaluation.score_answers import predictions_of, score_of
from siqvl.evaluation.scoring.scores import Score
from siqvl.recipe import Benchmark, Recipe
from siqvl.recipe.named_benchmarks import benchmarks
from tests.data.made_pictures import picture
from tests.data.sources.published_files import IMAGE_TYPE, write_parquet

PICTURE = {"bytes": picture("red"), "path": "0.png"}
WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly"
LIST = pa.list_(pa.string())
NAMES = [f"image_{number}" for number in range(1, 8)]
ASKED = {"image": PICTURE, "question": "What is it?"}
ANNOTATED = pa.list_(
    pa.struct([("answer", pa.string()), ("answer_confidence", pa.string()), ("answer_id", "int64")])
)

#: Benchmark -> its rows as published.
ROWS: dict[str, list[dict[str, Any]]] = {
    "mmstar": [
        {
            **{"index": 7, "image": PICTURE, "answer": "B", "category": "math"},
            "question": "Which?\nOptions: A: a cat, B: a dog, C: a hen, D: a cow",
            **{"l2_category": "geometry", "meta_info": {"source": "MMMU"}},
        }
    ],
    "mmmu": [
        {
            **{"id": "validation_Art_1", "answer": "B", "subfield": "Drawing"},
            "question": "<image 1> Which?",
            **{"options": "['a cat', 'a dog']", "question_type": "multiple-choice"},
            "image_1": PICTURE,
        },
        {
            **{"id": "validation_Finance_2", "answer": "['1,000', '1e3']", "subfield": "Costs"},
            "question": "How much is <image 1> and <image 2>?",
            **{"options": "[]", "question_type": "open"},
            **{"image_1": PICTURE, "image_2": {"bytes": picture("blue"), "path": None}},
        },
    ],
    "pope": [
        {
            **ASKED,
            **{"id": str(number), "question_id": str(number), "image_source": "COCO_1"},
            **{"answer": answer, "category": category},
        }
        for number, (answer, category) in enumerate(
            [("yes", "random"), ("no", "random"), ("yes", "popular"), ("no", "popular")]
        )
    ],
    "mme": [
        {
            **{"question_id": "existence/1.png", "image": PICTURE, "category": "existence"},
            **{"question": f"Is there {what}? Please answer yes or no.", "answer": answer},
        }
        for what, answer in (("a cat", "Yes"), ("a dog", "No"))
    ],
    "ai2d": [{**ASKED, "options": ["a cat", "a dog"], "answer": "1"}],
    "scienceqa_img": [
        {
            **ASKED,
            **{"choices": ["a cat", "a dog"], "answer": 1, "hint": hint, "subject": "biology"},
            **{"lecture": "", "solution": "", "task": "closed choice"},
        }
        for hint in ("It barks.", "")
    ],
    "chartqa": [{**ASKED, "type": "human_test", "answer": "100"}],
    "docvqa": [
        {
            **ASKED,
            **{"questionId": "9", "answers": ["ITC Limited", "itc limited"], "docId": 4},
            **{"question_types": ["form"], "data_split": "val"},
        }
    ],
    "infovqa": [
        {
            **ASKED,
            **{"questionId": "9", "answers": ["3 %"], "answer_type": ["non span"]},
            **{"operation/reasoning": [], "ocr": "", "data_split": "val"},
        }
    ],
    "textvqa": [
        {
            **ASKED,
            **{"image_id": "a", "question_id": 3, "answers": ["nokia"] * 9 + ["phone"]},
            **{"image_classes": ["Phone"], "ocr_tokens": ["NOKIA"], "set_name": "val"},
        }
    ],
    "vqav2": [
        {
            **ASKED,
            **{"question_id": 4, "image_id": 1, "question_type": "what", "answer_type": "other"},
            "multiple_choice_answer": "dog",
            "answers": [
                {"answer": "dog", "answer_confidence": "yes", "answer_id": number}
                for number in range(1, 11)
            ],
        }
    ],
    "mathvista": [
        {
            **{"pid": "1", "image": "images/1.jpg", "decoded_image": PICTURE, "answer": "1.2"},
            "question": "How far?",
            "query": "Hint: Please answer the question requiring a floating-point number.\n"
            "Question: How far?",
            **{"choices": None, "question_type": "free_form", "answer_type": "float"},
            "precision": 1.0,
        },
        {
            **{"pid": "2", "image": "images/2.jpg", "decoded_image": PICTURE, "answer": "a dog"},
            "question": "Which?",
            "query": "Hint: Please answer the question and provide the correct option letter.\n"
            "Question: Which?\nChoices:\n(A) a cat\n(B) a dog",
            **{"choices": ["a cat", "a dog"], "question_type": "multi_choice"},
            **{"answer_type": "text", "precision": None},
        },
    ],
    "ocrbench": [
        {
            **ASKED,
            **{"dataset": "IIIT5K", "question_type": "Regular Text Recognition"},
            "answer": ["CENTRE"],
        },
        {
            **ASKED,
            **{"dataset": "HME100k", "answer": ["x ^ { 2 }"]},
            "question_type": "Handwritten Mathematical Expression Recognition",
        },
    ],
}
TYPES = {
    "mmstar": {"image": IMAGE_TYPE},
    "mmmu": dict.fromkeys(NAMES, IMAGE_TYPE),
    "vqav2": {"answers": ANNOTATED},
    "mathvista": {"decoded_image": IMAGE_TYPE, "choices": LIST, "precision": pa.float64()},
}
#: Benchmark -> what is put to the model about each row, and what it then says to score 1.
EXPECTED: dict[str, list[tuple[str, str]]] = {
    "mmstar": [(f"Which?\nOptions: A: a cat, B: a dog, C: a hen, D: a cow{LETTER}", "B: a dog")],
    "mmmu": [
        (f"Which?\nA. a cat\nB. a dog\n{LETTER}.", "(B)"),
        (f"How much is <image> and <image>?\n{WORD}", "It is 1000."),
    ],
    "pope": [(f"What is it?{WORD}", answer) for answer in ("Yes", "no", "Yes.", "No, not")],
    "mme": [
        ("Is there a cat? Please answer yes or no.", "YES!"),
        ("Is there a dog? Please answer yes or no.", "No"),
    ],
    "ai2d": [(f"What is it?\nA. a cat\nB. a dog{LETTER}.", "B. a dog")],
    "scienceqa_img": [
        (f"Context: It barks.\nWhat is it?\nA. a cat\nB. a dog{LETTER}.", "B"),
        (f"What is it?\nA. a cat\nB. a dog{LETTER}.", "B. a dog"),
    ],
    "chartqa": [("What is it?\nAnswer the question with a single word.", "104")],
    "docvqa": [(f"What is it?{WORD}", "itc limited")],
    "infovqa": [(f"What is it?{WORD}", "3 %")],
    "textvqa": [(f"What is it?{WORD}", "Nokia,")],
    "vqav2": [(f"What is it?{WORD}", "dog")],
    "gqa": [(f"What is it?{WORD}", "Dog.")],
    "mathvista": [
        (ROWS["mathvista"][0]["query"], "It is 1.24"),
        (ROWS["mathvista"][1]["query"], "The answer is (B)."),
    ],
    "ocrbench": [("What is it?", "the centre"), ("What is it?", "It says x^{2}.")],
}


def publish(name: str, folder: Path) -> None:
    """Lays out a data set as it is on the hub: a card, and a folder of parquet a subset."""
    source = benchmarks()[name]["source"]
    subsets = source.get("subsets", ["default"])
    tables = {(subset, source["split"]): ROWS.get(name, []) for subset in subsets}
    if name == "pope":  # a second time, in splits
        tables["Full", "random"] = ROWS["pope"][:2]
    if name == "gqa":  # questions and pictures apart
        asked = {"id": "7", "imageId": "n1", "question": "What is it?", "answer": "dog"}
        tables = {
            ("testdev_balanced_instructions", "testdev"): [
                asked | {"types": {"structural": "query"}}
            ],
            ("testdev_balanced_images", "testdev"): [{"id": "n1", "image": PICTURE}],
        }
    card = []
    for (subset, split), rows in tables.items():
        file = folder / subset / f"{split}-00000-of-00001.parquet"
        named = {key: None for row in rows for key in row} | dict.fromkeys(TYPES.get(name, {}))
        table = pa.Table.from_pylist([dict.fromkeys(named) | row for row in rows])
        types = {key: table.schema.field(key).type for key in named} | TYPES.get(name, {})
        write_parquet(file, rows, **types)
        files = [{"split": split, "path": f"{subset}/{split}-*"}]
        card.append({"config_name": subset, "data_files": files})
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(card)}\n---\n")


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, small_recipe) -> tuple[Recipe, Path]:
    """A recipe of all named benchmarks, and where they are prepared."""
    folder = tmp_path_factory.mktemp("published")
    chosen = []
    for name in benchmarks():
        publish(name, folder / "hub" / name)
        here = {"path": str(folder / "hub" / name)}
        chosen.append({"benchmark": name, "source": here, "blind": []})
    recipe = small_recipe(folder, evaluation={"benchmarks": chosen})
    prepare_benchmarks(recipe, folder / "out")
    return recipe, folder / "out"


def questions_of(name: str, asked: tuple[Recipe, Path]) -> Questions:
    recipe, out = asked
    benchmark = next(one for one in recipe.evaluation.benchmarks if one.name == name)
    return load_questions(benchmark, out)


def scored(questions: Questions, said: list[str], asked: tuple[Recipe, Path]) -> Score:
    recipe, out = asked
    outputs = {("picture", number): Output(text) for number, text in enumerate(said)}
    table = predictions_of(questions, outputs, read_baselines(out, questions.benchmark))
    return score_of(questions, table, "", recipe)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_asked_is_as_published_and_the_right_answer_scores(name: str, asked) -> None:
    questions = questions_of(name, asked)
    rows, benchmark = questions.rows, questions.benchmark
    put = [question_of(row, benchmark) + suffix_of(row, benchmark) for row in rows]
    assert put == [prompt for prompt, _ in EXPECTED[name]]
    score = scored(questions, [answer for _, answer in EXPECTED[name]], asked)
    assert score.players["picture"].mean == pytest.approx(1)
    assert scored(questions, ["Yes and no, 77"] * len(rows), asked).players["picture"].mean < 1
    assert score.scorer.partition("/")[0].removesuffix("-official") == benchmark.scorer


def test_every_named_benchmark_is_tested() -> None:
    assert list(EXPECTED) == list(benchmarks())
    assert set(ROWS) | {"gqa"} == set(benchmarks())


def test_types_and_groups_are_as_published(asked) -> None:
    found = {
        name: [(row["type"], row["group"]) for row in questions_of(name, asked).rows]
        for name in ("mmstar", "mme", "pope", "chartqa", "mathvista")
    }
    assert found == {
        "mmstar": [("math", "")],
        "mme": [("existence", "existence/1.png")] * 2,
        "pope": [("random", "")] * 2 + [("popular", "")] * 2,
        "chartqa": [("human_test", "")],
        "mathvista": [("float 1", ""), ("text", "")],
    }


def test_figures_over_groups_are_beside_the_mean(asked) -> None:
    mme = scored(questions_of("mme", asked), ["yes", "yes"], asked)
    assert mme.players["picture"].mean == 0.5
    # accuracy 50, accuracy+ 0
    assert mme.figures["accuracy+"] == 0
    assert (mme.figures["total"], mme.figures["perception"], mme.figures["existence"]) == (50,) * 3
    assert mme.how.startswith("generation, mme/1; total 50.0, cognition 0.0")
    pope = scored(questions_of("pope", asked), ["yes", "no", "no", "yes"], asked)
    assert (pope.figures["random F1"], pope.figures["popular F1"]) == (100, 0)
    assert pope.figures["yes ratio"] == 50


def test_guessers_say_places_also_where_the_published_rule_reads_letters_alone(asked) -> None:
    recipe, out = asked
    for name in ("mmmu", "scienceqa_img", "mathvista"):
        benchmark = next(one for one in recipe.evaluation.benchmarks if one.name == name)
        found = read_baselines(out, benchmark).to_pylist()
        assert max(one["score"] for one in found if one["player"] == "majority") == 1.0


def test_benchmarks_without_their_name_are_stored_alike() -> None:
    given = Benchmark.model_validate({"benchmark": "mme", "blind": []})
    assert Benchmark.model_validate(given.model_dump(mode="json")) == given


def test_half_a_pair_stops_the_preparation(tmp_path: Path, small_recipe) -> None:
    publish("mme", tmp_path / "mme")
    half = {"path": str(tmp_path / "mme"), "max_samples": 1}
    chosen = {"benchmark": "mme", "source": half, "blind": []}
    recipe = small_recipe(tmp_path, evaluation={"benchmarks": [chosen]})
    with pytest.raises(UserError, match=r"pairs of questions, but 1 of type `existence`"):
        prepare_benchmarks(recipe, tmp_path / "out")
