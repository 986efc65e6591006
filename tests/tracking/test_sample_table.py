"""Samples are where MLflow's own functions and pages look for them."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from siqvl.recipe import Recipe
from siqvl.tracking.runs import RunLog, client, start_run
from siqvl.tracking.sample_table import COLUMNS, TABLE, Answered, SampleTable

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> RunLog:
    folder = tmp_path_factory.mktemp("samples")
    content = Recipe.load(RECIPES / "tiny.yaml").model_dump(mode="json")
    content["tracking"] |= {"experiment": "test", "uri": f"sqlite:///{folder}/mlflow.db"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a sqlite store keeps its artifacts in ./mlruns
        log = start_run(Recipe.model_validate(content), "samples")
        table = SampleTable(log)
        for step, words in ((0, ("", "ein\nrotes Ding é")), (100, ("red", "blue"))):
            table.add(step, [answered(number, text) for number, text in enumerate(words)])
        assert log.flush()
        yield log


def answered(number: int, answer: str) -> Answered:
    picture = Image.new("RGBA", (900, 40), (255 * number, 0, 0, 255))
    return Answered(f"row/{number}", picture, "what color?", "red", answer, trained_on=number)


def test_load_table_returns_the_rows_of_every_step(log: RunLog) -> None:
    table = client(log.uri).load_table("1", TABLE, run_ids=[log.run_id])
    assert tuple(table.columns) == COLUMNS
    rows = table.drop(columns="picture").to_numpy().tolist()
    assert rows == [  # the newest first
        [100, "what color?", "red", "red", 0, "row/0"],
        [100, "what color?", "red", "blue", 1, "row/1"],
        [0, "what color?", "red", "", 0, "row/0"],
        [0, "what color?", "red", "ein\nrotes Ding é", 1, "row/1"],
    ]


def test_it_is_written_as_mlflow_writes_one(log: RunLog, tmp_path: Path) -> None:
    """The same table, logged by MLflow itself into another run."""
    store = client(log.uri)
    other = store.create_run("1").info.run_id
    rows = [answered(number, text) for number, text in enumerate(("a", "b"))]
    data = {"picture": [row.picture for row in rows], "answer": [row.answer for row in rows]}
    store.log_table(other, data, TABLE)
    theirs, ours = (store.get_run(run).data.tags for run in (other, log.run_id))
    assert ours["mlflow.loggedArtifacts"] == theirs["mlflow.loggedArtifacts"]
    (cell, _), (own, _) = (
        [row[column] for row in json.loads(read(run, tmp_path, store))["data"]][:2]
        for run, column in ((other, 0), (log.run_id, COLUMNS.index("picture")))
    )
    assert own.keys() == cell.keys()
    assert own["type"] == cell["type"] == "image"
    for kind in ("filepath", "compressed_filepath"):
        pattern = r"(table_images/samples)/[^/]+(\.\w+)"
        assert re.fullmatch(pattern, own[kind])[2] == re.fullmatch(pattern, cell[kind])[2]
        path = store.download_artifacts(log.run_id, own[kind], str(tmp_path))
        with Image.open(path) as picture:
            assert max(picture.size) == {"filepath": 512, "compressed_filepath": 256}[kind]
    kept = store.list_artifacts(log.run_id, "table_images/samples")
    assert len(kept) == 4  # two rows, whatever the number of steps


def read(run_id: str, folder: Path, store) -> str:
    (folder / run_id).mkdir()
    return Path(store.download_artifacts(run_id, TABLE, str(folder / run_id))).read_text()


def test_sheets_have_the_names_that_log_image_gives(log: RunLog, tmp_path: Path) -> None:
    store = client(log.uri)
    other = store.create_run("1").info.run_id
    store.log_image(other, Image.new("RGB", (8, 8)), key="samples", step=7)
    theirs, ours = (
        sorted(file.path for file in store.list_artifacts(run, "images"))
        for run in (other, log.run_id)
    )
    shape = re.compile(
        r"images/(?P<key>[^+]+)\+step\+(?P<step>\d+)\+timestamp\+\d{13}\+[0-9a-f-]{36}"
        r"(?P<end>\.png|\+compressed\.webp)"
    )
    assert [shape.fullmatch(path)["end"] for path in theirs] == ["+compressed.webp", ".png"]
    assert {shape.fullmatch(path)["key"] for path in theirs} == {"samples"}
    found = [shape.fullmatch(path) for path in ours]
    assert sorted((one["key"], int(one["step"]), one["end"]) for one in found) == [
        ("samples", step, end) for step in (0, 100) for end in ("+compressed.webp", ".png")
    ]
    tags = [store.get_run(run).data.tags["mlflow.loggedImages"] for run in (other, log.run_id)]
    assert tags == ["True", "True"]
    path = store.download_artifacts(log.run_id, ours[0], str(tmp_path))
    with Image.open(path) as sheet:
        assert sheet.width == 320 + 10 + 320  # two cards and what is between them
        assert sheet.height > 40 * 320 / 900


def test_rows_without_a_picture_have_cards_of_words(tmp_path: Path, log: RunLog) -> None:
    run = client(log.uri).create_run("1").info.run_id
    own = RunLog(log.uri, run, log.outbox)
    SampleTable(own).add(3, [Answered("r", None, "why? " * 200, "", "", 0)])
    assert own.flush()
    table = client(log.uri).load_table("1", TABLE, run_ids=[run])
    assert table["picture"][0]["type"] == "image"  # a blank one: the page draws every cell
    assert len(client(log.uri).list_artifacts(run, "images")) == 2
