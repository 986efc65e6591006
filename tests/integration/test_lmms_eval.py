"""lmms-eval's own command on a checkpoint of ours: its answers and scores are those of our own.

Both sides are asked in one environment, which holds what `pip install 'siqvl[lmms-eval]'` puts
there: with torchvision in it, transformers scales pictures by another implementation.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.evaluation.scoring.predictions import read_predictions
from siqvl.recipe import Recipe, Source, Stage
from siqvl.stages import STAGES
from siqvl.training.stage import train_stage
from tests.conftest import copy_code
from tests.small_recipe import small_recipe

pytestmark = pytest.mark.drill

#: Steps after which a checkpoint has much to say, and is often wrong.
STEPS = {Stage.PROJECTOR_ALIGNMENT: 100, Stage.VQA_SFT: 200}
QUESTIONS = 200
#: An environment that is there already; else one is made, which takes minutes.
GIVEN = "SIQVL_LMMS_EVAL_PYTHON"

#: Run in that environment: our evaluation, and its questions in a form that lmms-eval reads.
OURS = """
import json, sys
from pathlib import Path
from datasets import Dataset, Features, Image, List, Value
from siqvl.evaluation.asking.greedy_answers import question_of, suffix_of
from siqvl.evaluation.benchmarks.benchmark_rows import load_questions
from siqvl.evaluation.benchmarks.prepare_benchmarks import prepare_benchmarks
from siqvl.evaluation.evaluate import evaluate
from siqvl.evaluation.letters import letters
from siqvl.recipe import Recipe

recipe, checkpoint = Recipe.model_validate(json.loads(Path("recipe.json").read_text())), sys.argv[1]
prepare_benchmarks(recipe, Path("rows"))
evaluate(recipe, checkpoint=Path(checkpoint), data=Path("rows"), out=Path("ours"))
for benchmark in recipe.evaluation.benchmarks:
    asked = load_questions(benchmark, Path("rows"))
    rows = [
        {
            "question": question_of(row, benchmark) + suffix_of(row, benchmark),
            "pictures": whole["images"],
            "answer": row["answers"][0],
            "options": letters(len(row["choices"])),
            "right": row["choices"].index(row["answers"][0]) if row["choices"] else 0,
        }
        for row, whole in zip(asked.rows, asked.dataset, strict=True)
    ]
    text = Value("string")
    features = {"question": text, "pictures": List(Image()), "answer": text}
    features |= {"options": List(text), "right": Value("int64")}
    table = Dataset.from_list(rows, Features(features))
    table.to_parquet(f"tasks/{benchmark.name}.parquet")
"""

#: Beside the tasks: what their `!function` names.
FUNCTIONS = """
def pictures(doc):
    return [picture.convert("RGB") for picture in doc["pictures"]]
"""


@dataclass(frozen=True)
class Sides:
    """What both said and scored, by benchmark, in the questions' order."""

    ours: dict[str, list[dict[str, Any]]]
    theirs: dict[str, list[dict[str, Any]]]  # by task and protocol: `words chat`
    means: dict[str, float]  # of theirs


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment with the extra, from a copy of the code."""
    if given := os.environ.get(GIVEN):
        return given
    folder = tmp_path_factory.mktemp("lmms")
    code = copy_code(
        folder / "code", ("siqvl", "tasks", "workflows", "pyproject.toml", "README.md", "LICENSE")
    )
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    # `===`: the build of PyPI, for which its torchvision is made, where the index has others too
    wanted = [f"{code}[lmms-eval]", "torch===2.13.0"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return str(python)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    content = small_recipe(folder).model_dump(mode="json")
    for stage, steps in STEPS.items():
        figures = content["stages"][stage.value]
        figures |= {"max_steps": steps, "batch_size": 16, "cached_features": True}
        for source in figures["sources"]:
            source["max_samples"] = 2_000
    recipe, parent = Recipe.model_validate(content), None
    for stage in STEPS:
        data, output = folder / f"{stage.value}-data", folder / stage.value
        sources_of = recipe.stage(stage).sources
        prepare(sources_of, STAGES[stage].rows, data, data=recipe.data, seed=0)
        train_stage(stage, recipe, data=data, checkpoint=parent, output=output)
        parent = output
    assert parent is not None
    return parent


@pytest.fixture(scope="module")
def sides(python: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    folder = tmp_path_factory.mktemp("sides")
    tasks = folder / "tasks"
    tasks.mkdir()
    (folder / "recipe.json").write_text(asking(folder).model_dump_json())
    (folder / "ours.py").write_text(OURS)
    (tasks / "functions.py").write_text(FUNCTIONS)
    for name in ("words", "mixed", "letters"):
        (tasks / f"{name}.yaml").write_text(task(name, tasks))
    run(python, "ours.py", str(checkpoint), folder=folder)
    theirs: dict[str, list[dict[str, Any]]] = {}
    means: dict[str, float] = {}
    for protocol, names, options in (
        ("chat", ["words", "mixed"], ["--batch_size", "16"]),
        ("simple", ["words", "mixed", "letters"], ["--force_simple"]),
    ):
        command = ["-m", "lmms_eval", "--model", "siqvl", "--include_path", str(tasks)]
        command += ["--model_args", f"pretrained={checkpoint},attention=eager"]
        command += ["--tasks", ",".join(f"siqvl_{name}" for name in names), *options]
        output = folder / protocol
        run(python, *command, "--log_samples", "--output_path", str(output), folder=folder)
        (results,) = output.rglob("*_results.json")
        for name in names:
            (samples,) = output.rglob(f"*_samples_siqvl_{name}.jsonl")
            lines = [json.loads(line) for line in samples.read_text().splitlines()]
            theirs[f"{name} {protocol}"] = sorted(lines, key=lambda line: line["doc_id"])
            scored = json.loads(results.read_text())["results"][f"siqvl_{name}"]
            means[f"{name} {protocol}"] = scored[f"{metric(name)},none"]
    found = read_predictions(folder / "ours").to_pylist()
    ours = {
        name: [one for one in found if (one["benchmark"], one["player"]) == (name, "picture")]
        for name in ("words", "mixed", "letters")
    }
    return Sides(ours, theirs, means)


def asking(folder: Path) -> Recipe:
    """Our recipe: questions in words, the same with several pictures or none, and by letter."""
    content = small_recipe(folder).model_dump(mode="json")
    shapes = {"kind": "shapes", "subsets": ["vqa"], "split": "test", "max_samples": QUESTIONS}
    common = {"stages": ["vqa_sft"], "blind": []}
    content["evaluation"]["champion_benchmark"] = None
    content["evaluation"]["benchmarks"] = [
        {"name": "words", "source": shapes, "max_new_tokens": 6, **common},
        {"name": "mixed", "source": mixed(folder / "mixed"), "max_new_tokens": 12, **common},
        {
            "name": "letters",
            "source": shapes,
            "method": "likelihood",
            "letters": True,
            "scorer": "choice",
            **common,
        },
    ]
    return Recipe.model_validate(content)


def mixed(folder: Path) -> dict[str, Any]:
    """A table: questions about one picture, two that the text marks, and none."""
    folder.mkdir()
    source = Source(kind="shapes", subsets=["vqa"], split="test", skip=QUESTIONS, max_samples=40)
    lines = []
    for number, row in enumerate(sources.rows(source, RowKind.EVALUATION, 0)):
        name = f"{number}.png"
        row["images"][0].save(folder / name)
        before = f"{max(number - 1, 0)}.png"
        lines.append({"images": [name], "question": row["question"], "answer": row["answers"][0]})
        marked = f"<image> came before. In <image>: {row['question']}"
        lines.append({**lines[-1], "images": [before, name], "question": marked})
        lines.append({**lines[-2], "images": []})
    path = folder / "mixed.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"kind": "table", "path": str(path), "split": "test", "pictures": str(folder)}


def metric(name: str) -> str:
    return "acc" if name == "letters" else "exact_match"


def task(name: str, folder: Path) -> str:
    """One of lmms-eval's task files."""
    scored = {"metric": metric(name), "aggregation": "mean", "higher_is_better": True}
    content = {
        "task": f"siqvl_{name}",
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.parquet")}},
        "test_split": "test",
        "doc_to_text": "question",
        "metric_list": [scored],
    }
    if name == "letters":
        content |= {"output_type": "multiple_choice", "target_delimiter": ""}
        content |= {"doc_to_choice": "options", "doc_to_target": "right"}
    else:
        scored["ignore_case"] = True
        tokens = 6 if name == "words" else 12
        content |= {"output_type": "generate_until", "doc_to_target": "answer"}
        content |= {"generation_kwargs": {"max_new_tokens": tokens, "until": []}}
    return yaml.safe_dump(content) + "doc_to_visual: !function functions.pictures\n"


def run(python: str, *words: str, folder: Path) -> None:
    """Runs something in that environment, offline, from a folder without this code."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [python, *words],
        cwd=folder,
        env=kept | offline,
        capture_output=True,
        text=True,
        check=False,
    )
    # lmms-eval ends with 0 when an evaluation failed
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Error during evaluation" not in done.stdout, done.stdout + done.stderr


def test_the_environment_is_what_the_extra_pins(python: str, tmp_path: Path) -> None:
    code = "import torch, torchvision; print(torch.__version__, torchvision.__version__)"
    said = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    torch, torchvision = (version.partition("+")[0] for version in said.split())
    assert (torch, torchvision) == ("2.13.0", "0.28.0")


@pytest.mark.parametrize("protocol", ["chat", "simple"])
@pytest.mark.parametrize("name", ["words", "mixed"])
def test_answers_and_scores_in_words_are_equal(sides: Sides, name: str, protocol: str) -> None:
    ours, theirs = sides.ours[name], sides.theirs[f"{name} {protocol}"]
    assert len(ours) == len(theirs) == (QUESTIONS if name == "words" else 120)
    answers = [one["generation"] for one in ours]
    scores = [one["score"] for one in ours]
    assert [one["filtered_resps"] for one in theirs] == answers
    assert [one["exact_match"] for one in theirs] == scores
    assert sides.means[f"{name} {protocol}"] == pytest.approx(sum(scores) / len(scores))
    told(name, protocol, answers, scores)


def test_letters_by_likelihood_are_equal(sides: Sides) -> None:
    ours, theirs = sides.ours["letters"], sides.theirs["letters simple"]
    assert len(ours) == len(theirs) == QUESTIONS
    chosen = []
    for one in theirs:
        losses = [loss for loss, _ in one["filtered_resps"]]
        chosen.append("ABCDEFGH"[losses.index(min(losses))])
    scores = [one["score"] for one in ours]
    assert chosen == [one["generation"] for one in ours]
    assert [one["acc"] for one in theirs] == scores
    assert sides.means["letters simple"] == pytest.approx(sum(scores) / len(scores))
    told("letters", "simple", chosen, scores)


def told(name: str, protocol: str, answers: list[str], scores: list[float]) -> None:
    """Says what was equal, which is to be neither one answer nor all right or wrong."""
    assert len(set(answers)) > 2
    assert 0 < sum(scores) < len(scores)
    print(
        f"\n{name}, {protocol}: {len(answers)} answers equal, {len(set(answers))} different ones, "
        f"{sum(scores) / len(scores):.3f} right on both sides",
        end="",
    )


def test_wrong_model_args_are_one_sentence(python: str, checkpoint: Path, tmp_path: Path) -> None:
    args = f"pretrained={checkpoint},max_new_token=4"
    command = ["-m", "lmms_eval", "--model", "siqvl", "--model_args", args, "--tasks", "mme"]
    done = subprocess.run(
        [python, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    sentence = "model_args: unknown key `max_new_token`, did you mean `max_new_tokens`?"
    assert sentence in done.stdout
