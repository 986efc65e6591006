"""What code of older commits has written is still loaded, continued, evaluated and served.

`093dab5/made.tar.xz` was written by that commit (`make_093dab5.sh` makes it anew), and
`093dab5/expected.json` says what it computed then. Other CPUs round otherwise, so figures are
compared within tolerances; answers as they are, for each of their tokens leads by a logit of 0.002.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import mlflow.pyfunc
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from siqvl.checkpoint import content_hash, read_card, read_history
from siqvl.data.manifest import Manifest
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.evaluation.evaluate import evaluate
from siqvl.evaluation.scoring.predictions import read_predictions
from siqvl.evaluation.scoring.scores import Scores
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import PIPELINE, Recipe, Stage
from siqvl.registry.promotion import CHAMPION, promote
from siqvl.registry.versions import CHECKPOINT, RUN, Registry
from siqvl.serving.requests import read_request
from siqvl.serving.settings import ServingSettings
from siqvl.stages import STAGES
from siqvl.tracking.runs import start_run
from siqvl.training.stage import train_stage

FIXTURE = Path(__file__).parent / "093dab5"
#: Losses and gradients of a few steps: kernels of other CPUs differ by 3e-6 at most, and a run that
#: has lost its optimizer's moments by 1e-3.
CLOSE = {"rel": 1e-4, "abs": 1e-6}
WEIGHTS_CLOSE = 5e-5  # likewise 4e-7, and 1.5e-3
#: Loads a checkpoint and a registered model where nothing of today's siqvl is imported.
ELSEWHERE = """
import json, sys
import mlflow.pyfunc, pandas, torch
from transformers import AutoModelForImageTextToText, AutoProcessor
checkpoint, model, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
loaded = AutoModelForImageTextToText.from_pretrained(checkpoint, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
code = [type(loaded).__module__, type(processor).__module__]
assert "siqvl" not in sys.modules
answers = mlflow.pyfunc.load_model(model).predict(pandas.DataFrame(rows))
import siqvl
print(json.dumps([code, siqvl.__file__, answers.to_dict(orient="records")]))
"""


class Older(NamedTuple):
    """The unpacked fixture, which is the working folder of every test."""

    folder: Path
    recipe: Recipe
    expected: dict[str, Any]

    def checkpoint(self, stage: Stage) -> Path:
        return self.folder / "checkpoints" / stage

    def data(self, stage: Stage) -> Path:
        return self.folder / "data" / stage

    def train(self, stage: Stage, output: Path, changed_code: str = "refuse") -> Path:
        """Train a stage on its older rows, from the older checkpoint of the stage before."""
        recipe = self.recipe.model_copy(update={"changed_code": changed_code})
        parent = next(iter(STAGES[stage].parents), None)
        checkpoint = self.checkpoint(parent) if parent else None
        train_stage(stage, recipe, data=self.data(stage), checkpoint=checkpoint, output=output)
        return output


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(FIXTURE / "made.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def older(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Older:
    """Paths in the recipe are relative, so that it has the hash that older states go by."""
    monkeypatch.chdir(unpacked)
    recipe = Recipe.model_validate_json((unpacked / "recipe.json").read_text())
    return Older(unpacked, recipe, json.loads((FIXTURE / "expected.json").read_text()))


@pytest.fixture
def registry(older: Older, tmp_path: Path) -> Registry:
    """The registry of the older store, which is there as SQL text."""
    text = (older.folder / "store.sql").read_text().replace("@HERE@", str(older.folder))
    with closing(sqlite3.connect(tmp_path / "store.db")) as store:
        store.executescript(text)
    return Registry(f"sqlite:///{tmp_path}/store.db", older.recipe.tracking.model_name)


def figures(history: list[dict[str, Any]], *names: str) -> list[list[float]]:
    return [[entry[name] for name in names] for entry in history]


def approximately(expected: list[list[float]]) -> list[Any]:
    return [pytest.approx(line, **CLOSE) for line in expected]


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_checkpoint_is_what_its_card_says(older: Older, stage: Stage) -> None:
    card = read_card(older.checkpoint(stage), expected=stage)
    assert card.hash == content_hash(older.checkpoint(stage))
    assert card.todays_recipe() == older.recipe
    assert card.recipe_hash == older.recipe.hash()
    parent = next(iter(STAGES[stage].parents), None)
    assert card.parent == (read_card(older.checkpoint(parent)).hash if parent else None)
    assert card.data_fingerprint == Manifest.read(older.data(stage)).fingerprint
    assert card.code_version.endswith("+093dab5")


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_checkpoint_computes_what_it_did(older: Older, stage: Stage) -> None:
    model, processor = load_checkpoint(older.checkpoint(stage), attn_implementation="eager")
    asked = older.expected["request"][0]
    (row,) = read_request([asked], ServingSettings.of(older.recipe))
    content = [{"type": "image"}, {"type": "text", "text": asked["question"]}]
    turns = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    inputs = processor(images=row["images"], text=text, return_tensors="pt")
    with torch.inference_mode():
        logits = model.eval()(**inputs).logits[0, -1]
    expected = torch.tensor(older.expected["logits"][stage])
    torch.testing.assert_close(logits[: len(expected)], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stage", PIPELINE)
def test_prepared_rows_are_read(older: Older, stage: Stage) -> None:
    rows, manifest = load_prepared(older.data(stage), STAGES[stage].rows)
    assert len(rows) == manifest.rows == sum(manifest.rows_of_sources) > 0
    assert manifest.sources == older.recipe.stage(stage).sources
    assert rows[0]["images"][0].size == (64, 64)


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_continues_from_the_one_before(older: Older, stage: Stage, tmp_path: Path) -> None:
    """On older rows, with the losses that the older code had."""
    output = older.train(stage, tmp_path / stage)
    card, before = read_card(output, expected=stage), read_card(older.checkpoint(stage))
    assert (card.parent, card.data_fingerprint) == (before.parent, before.data_fingerprint)
    names = ("step", "loss", "grad_norm", "learning_rate")
    found, expected = read_history(output), read_history(older.checkpoint(stage))
    assert figures(found, *names) == approximately(figures(expected, *names))


def test_a_state_is_continued(older: Older, tmp_path: Path) -> None:
    """To the end of the run that nothing had interrupted; twice, bit for bit the same."""
    state, stage = older.expected["state"], Stage.VQA_SFT
    outputs = []
    for name in ("once", "twice"):
        work = tmp_path / name / Path(state["folder"]).name
        shutil.copytree(older.folder / state["folder"], work)
        with pytest.raises(UserError, match=f"step {state['step']} .* siqvl 0.1.*changed_code"):
            older.train(stage, tmp_path / name / stage)
        outputs.append(older.train(stage, tmp_path / name / stage, "go_on"))
        assert not work.exists(), "another folder was looked into for states"
    saved = older.folder / state["folder"] / f"checkpoint-{state['step']}" / "trainer_state.json"
    history, straight = read_history(outputs[0]), read_history(older.checkpoint(stage))
    # to the last figure, those of a clock among them: these steps were not done again
    assert history[: state["step"]] == json.loads(saved.read_text())["log_history"]
    assert [entry["step"] for entry in history] == [*range(1, state["steps"] + 1)]
    names = ("loss", "grad_norm", "learning_rate", "tokens_seen")
    assert figures(history, *names) == approximately(figures(straight, *names))
    found, expected = (
        load_file(folder / "model.safetensors") for folder in (outputs[0], older.checkpoint(stage))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=WEIGHTS_CLOSE)
    assert content_hash(outputs[0]) == content_hash(outputs[1])


def test_a_checkpoint_is_evaluated_as_before(older: Older, tmp_path: Path) -> None:
    scores = evaluate(
        older.recipe,
        checkpoint=older.checkpoint(Stage.DPO),
        data=older.folder / "data" / "evaluation",
        out=tmp_path / "report",
    )
    assert scores.metrics() == pytest.approx(older.expected["metrics"])
    lines = read_predictions(tmp_path / "report").to_pylist()
    written = {line["id"]: line["generation"] for line in lines if line["player"] == "picture"}
    assert written == older.expected["evaluation"]


def test_an_older_report_is_read(older: Older) -> None:
    report = older.folder / "reports" / Stage.DPO
    scores = Scores.read(report)
    assert scores.metrics() == pytest.approx(older.expected["metrics"])
    assert scores.checkpoint_hash == read_card(older.checkpoint(Stage.DPO)).hash
    assert len(read_predictions(report)) == 6 * scores.scores[0].questions


def test_the_champion_answers_beside_todays_code(
    older: Older, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's own file of code imports siqvl, and that is today's in a process that has it."""
    champion = registry.holder(CHAMPION)
    card = read_card(older.checkpoint(Stage.DPO))
    assert champion is not None
    assert champion.tags[CHECKPOINT] == card.hash
    found = registry.find({CHECKPOINT: card.hash, RUN: champion.tags[RUN]})
    assert found == champion
    monkeypatch.setattr(sys, "path", [*sys.path])  # MLflow adds the model's code to it
    model = mlflow.pyfunc.load_model(str(older.folder / older.expected["model"]))
    answers = model.predict(pd.DataFrame(older.expected["request"]))
    assert answers.to_dict(orient="records") == older.expected["served"]


def test_a_new_version_is_compared_with_the_older_champion(
    older: Older, registry: Registry
) -> None:
    content = older.recipe.model_dump(mode="json")
    content["tracking"]["uri"] = registry.uri
    log = start_run(Recipe.model_validate(content), "dpo")
    number = registry.register(log, older.checkpoint(Stage.DPO))
    outcome = promote(registry, number, older.folder / "reports" / Stage.DPO, "vqa")
    assert number == 2
    assert not outcome.moved
    assert "version 1" in outcome.sentence


@pytest.mark.integration
def test_both_load_where_todays_code_is_not_imported(older: Older, tmp_path: Path) -> None:
    """A checkpoint brings the code of its classes, and a model all of the siqvl that it is of."""
    model = older.folder / older.expected["model"]
    arguments = (older.checkpoint(Stage.DPO), model, json.dumps(older.expected["request"]))
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *map(str, arguments)],
        cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    code, siqvl, answers = json.loads(done.stdout.splitlines()[-1])
    assert all(name.startswith("transformers_modules.") for name in code)
    assert Path(siqvl).is_relative_to(model / "code")
    assert answers == older.expected["served"]
