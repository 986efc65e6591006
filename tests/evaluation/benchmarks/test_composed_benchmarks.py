"""Decomposed texts (NFD) from a table to a score: what reads equal is equal."""

import json
from pathlib import Path
from unicodedata import normalize

import pytest

from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.evaluation.benchmarks.prepare_benchmarks import prepare_benchmarks, read_baselines
from siqvl.evaluation.scoring.extraction import extract_answer
from siqvl.evaluation.scoring.meant_option import place_meant
from siqvl.evaluation.scoring.scorers import scorer
from siqvl.recipe import Benchmark, Source

FORMS = ("NFC", "NFD")
NAMES = ["anls", "chartqa", "choice", "exact_match", "gqa", "vqav2"]


def nfd(text: str) -> str:
    return normalize("NFD", text)


def table(path: Path, *rows: dict) -> Source:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return Source(kind="table", path=str(path))


@pytest.mark.parametrize("prediction", FORMS)
@pytest.mark.parametrize("reference", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_scorers_compare_what_reads_equal(name, prediction, reference):
    said, right = normalize(prediction, "pâté"), normalize(reference, "pâté")
    choices = [normalize(reference, one) for one in ("pâté", "pâte")]
    judge = scorer(name).score
    assert judge(said, [right] * 10, choices) == 1
    assert judge(normalize(prediction, "thé"), [right] * 10, choices) < 1


@pytest.mark.parametrize("generated", FORMS)
@pytest.mark.parametrize("marker", FORMS)
def test_a_marker_is_found_and_an_answer_comes_out_composed(generated, marker):
    text = normalize(generated, "Il y a un café.\nRéponse : **thé**.")
    assert extract_answer(text, normalize(marker, "Réponse :")) == normalize("NFC", "thé")
    assert extract_answer(normalize(generated, " thé "), None) == normalize("NFC", "thé")


@pytest.mark.parametrize("generated", FORMS)
@pytest.mark.parametrize("offered", FORMS)
def test_an_option_is_found_by_its_words_and_given_as_it_is_offered(generated, offered):
    choices = [normalize(offered, one) for one in ("pâté", "pâte", "thé")]
    assert place_meant(normalize(generated, "I think it is pâté"), choices) == 0
    assert place_meant("C", choices) == 2


def test_a_benchmark_and_what_is_learnt_for_it_may_be_encoded_differently(tmp_path, small_recipe):
    asked = {"question": nfd("Où?"), "answer": nfd("pâté"), "choices": [nfd("pâté"), nfd("thé")]}
    source = table(tmp_path / "asked.jsonl", asked, {"question": "Quoi?", "answer": "thé"})
    learnt = table(
        tmp_path / "learnt.jsonl",
        *[{"question": "Où?", "answer": "pâté", "choices": ["pâté", "thé"]}],
        *[{"question": "Quoi?", "answer": nfd("thé")}] * 2,
    )
    benchmark = Benchmark(name="made", source=source, training=learnt)
    listed = [benchmark.model_dump(mode="json")]
    prepare_benchmarks(small_recipe(tmp_path, evaluation={"benchmarks": listed}), tmp_path / "out")
    dataset, _ = load_prepared(tmp_path / "out" / "made", RowKind.EVALUATION)
    texts = dataset.select_columns(["question", "answers", "choices"]).to_list()
    assert texts[0]["answers"] == ["pâté"]
    assert texts[0]["choices"] == ["pâté", "thé"]
    assert texts[0]["question"].startswith("Où?")
    found = read_baselines(tmp_path / "out", benchmark).to_pylist()
    own = [line for line in found if line["player"] == "question_only"]
    assert [(line["answer"], line["score"]) for line in own] == [("pâté", 1.0), ("thé", 1.0)]
