"""Prepared data among a run's inputs, as MLflow itself reads them back."""

import json
from pathlib import Path

import pytest
from mlflow.types.schema import Schema
from mlflow.utils import validation

from siqvl.data.manifest import Manifest
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind, features
from siqvl.recipe import DataPrep, Recipe, Source
from siqvl.tracking.inputs import MAX_DIGEST, MAX_NAME, MAX_SOURCE, dataset_inputs, log_inputs
from siqvl.tracking.runs import RunLog, client, start_run

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(autouse=True)
def _away_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a sqlite store keeps its artifacts in ./mlruns


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a stage from two sources, and two benchmarks."""
    folder = tmp_path_factory.mktemp("data")
    captions, vqa = (
        Source(kind="shapes", subsets=[subset], max_samples=5) for subset in ("captions", "vqa")
    )
    prepare([captions, vqa], RowKind.SFT, folder / "stage", data=DataPrep(), seed=0)
    for split in ("test", "heldout"):
        source = vqa.model_copy(update={"split": split})
        out = folder / "benchmarks" / split
        prepare([source], RowKind.EVALUATION, out, data=DataPrep(), seed=0)
    return folder


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> RunLog:
    content = Recipe.load(RECIPES / "tiny.yaml").model_dump(mode="json")
    store = tmp_path_factory.mktemp("store")
    content["tracking"] |= {"experiment": "test", "uri": f"sqlite:///{store}/mlflow.db"}
    return start_run(Recipe.model_validate(content), "inputs")


def test_a_run_says_what_it_read_however_often_it_is_told(data: Path, log: RunLog) -> None:
    for _ in range(2):
        log_inputs(log, data / "stage", "training")
        log_inputs(log, data / "benchmarks", "evaluation")
    assert log.flush()
    inputs = client(log.uri).get_run(log.run_id).inputs.dataset_inputs
    found = {
        one.dataset.name: (one.dataset.digest, [(tag.key, tag.value) for tag in one.tags])
        for one in inputs
    }
    folders = {
        "shapes captions train + shapes vqa train": (data / "stage", "training"),
        "shapes vqa test": (data / "benchmarks" / "test", "evaluation"),
        "shapes vqa heldout": (data / "benchmarks" / "heldout", "evaluation"),
    }
    assert len(inputs) == 3
    assert found == {
        name: (Manifest.read(folder).fingerprint[:36], [("mlflow.data.context", context)])
        for name, (folder, context) in folders.items()
    }


def test_schema_and_profile_are_read_by_mlflow(data: Path) -> None:
    for folder, kind in (("stage", RowKind.SFT), ("benchmarks/test", RowKind.EVALUATION)):
        (one,) = dataset_inputs(data / folder, "training")
        columns = json.dumps(json.loads(one["schema"])["mlflow_colspec"])
        schema = Schema.from_json(columns)
        assert schema.input_names() == list(features(kind))
        assert json.loads(one["profile"])["num_rows"] == Manifest.read(data / folder).rows
    (stage,) = dataset_inputs(data / "stage", "training")
    assert stage["source_type"] == "code"
    assert [one["subsets"] for one in json.loads(stage["source"])["sources"]] == [
        ["captions"],
        ["vqa"],
    ]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("HuggingFaceM4/FineVision", "hugging_face"),
        ("${DATA}/vqa", "local"),
        ("data/questions.csv", "local"),
        ("/data/vqa", "local"),
        ("here/folder", "local"),
    ],
)
def test_where_it_is_from(data: Path, tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "here" / "folder").mkdir(parents=True)
    manifest = Manifest.read(data / "benchmarks" / "test")
    source = Source(kind="table", path=path, split="validation", revision="abc")
    out = tmp_path / "made"
    out.mkdir()
    changed = manifest.model_copy(update={"sources": [source]})
    (out / "manifest.json").write_text(changed.model_dump_json())
    (one,) = dataset_inputs(out, "evaluation")
    assert one["source_type"] == kind
    said = json.loads(one["source"])
    assert {"path": path, "split": "validation", "revision": "abc"}.items() <= said.items()


def test_mlflows_limits_hold_for_any_number_of_sources(data: Path, tmp_path: Path) -> None:
    limits = (
        validation.MAX_DATASET_NAME_SIZE,
        validation.MAX_DATASET_DIGEST_SIZE,
        validation.MAX_DATASET_SOURCE_SIZE,
    )
    assert limits == (MAX_NAME, MAX_DIGEST, MAX_SOURCE)
    manifest = Manifest.read(data / "stage")
    sources = [Source(kind="table", path=f"a/{'b' * 200}{number}") for number in range(400)]
    changed = manifest.model_copy(update={"sources": sources, "rows_of_sources": [0] * 400})
    (tmp_path / "manifest.json").write_text(changed.model_dump_json())
    (one,) = dataset_inputs(tmp_path, "training")
    assert [len(one[key]) for key in ("name", "digest")] == [MAX_NAME, MAX_DIGEST]
    assert json.loads(one["source"]) == {"sources": 400}  # 400 of 200 characters are too long
