"""Published data, read from SIQVL_REAL_DATA: counts, floors, splits, and labels."""

import os
from collections import Counter, defaultdict

import pytest

from siqvl.data import sources
from siqvl.data.encode import encode_preference, encode_sft
from siqvl.data.preparation.prepare import load_prepared, prepare
from siqvl.data.schema import ANSWER_MARKER, REASONING_PROMPT, RowKind
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source

if "SIQVL_REAL_DATA" not in os.environ:
    reason = "SIQVL_REAL_DATA is not set: published data is not in the repository"
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture
def easy(real_data):
    def build(split="train", **changes):
        return Source(kind="easy_vqa", path=str(real_data / "easy_vqa"), split=split, **changes)

    return build


@pytest.fixture
def puzzles(real_data):
    def build(split="all", **changes):
        return Source(kind="puzzlevqa", path=str(real_data / "puzzlevqa"), split=split, **changes)

    return build


@pytest.mark.parametrize(
    ("split", "questions", "images"), [("train", 38_575, 4_000), ("test", 9_673, 1_000)]
)
def test_easy_vqa_counts(easy, split, questions, images):
    rows = list(sources.rows(easy(split), RowKind.SFT, 0))
    assert len(rows) == len({row["id"] for row in rows}) == questions
    assert len({row["meta"] for row in rows}) == images
    assert all(len(row["images"]) == 1 and row["images"][0][:4] == b"\x89PNG" for row in rows)


def test_easy_vqa_floors(easy):
    """What two guessers get that see no picture: one answer for all, one per question."""
    train, test = (list(sources.rows(easy(s), RowKind.EVALUATION, 0)) for s in ("train", "test"))
    everywhere = Counter(row["answers"][0] for row in train)
    by_question = defaultdict(Counter)
    for row in train:
        by_question[row["question"]][row["answers"][0]] += 1
    commonest = everywhere.most_common(1)[0][0]
    majority = sum(row["answers"] == [commonest] for row in test) / len(test)
    blind = sum(
        row["answers"] == [(by_question[row["question"]] or everywhere).most_common(1)[0][0]]
        for row in test
    )
    assert round(100 * majority, 1) == 37.3
    assert round(100 * blind / len(test), 1) == 67.0


def test_easy_vqa_wrong_answers_are_of_the_same_kind(easy):
    for row in sources.rows(easy(max_samples=500), RowKind.PREFERENCE, 0):
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        assert chosen != rejected
        assert (chosen in ("yes", "no")) == (rejected in ("yes", "no"))


def test_easy_vqa_from_the_archive_a_folder_and_a_folder_above(easy, real_data, tmp_path):
    import zipfile

    archive = real_data / "easy_vqa" / "easy_vqa_data.zip"
    with zipfile.ZipFile(archive) as zip:
        wanted = [n for n in zip.namelist() if "/test/" in n]
        zip.extractall(tmp_path, wanted)
    expected = list(sources.rows(easy("test", max_samples=20), RowKind.SFT, 0))
    for path in (archive, tmp_path, tmp_path / "easy_vqa" / "data"):
        source = Source(kind="easy_vqa", path=str(path), split="test", max_samples=20)
        sources.check(source, RowKind.SFT)
        assert list(sources.rows(source, RowKind.SFT, 0)) == expected


def test_a_picture_or_question_that_is_damaged_costs_one_row(easy, real_data, tmp_path):
    import json
    import zipfile

    with zipfile.ZipFile(real_data / "easy_vqa" / "easy_vqa_data.zip") as zip:
        zip.extractall(tmp_path / "in", [name for name in zip.namelist() if "/test/" in name])
    (file,) = tmp_path.rglob("questions.json")
    questions = json.loads(file.read_text())[:100]
    (file.parent / "images" / f"{questions[0][2]}.png").unlink()
    lost = sum(image == questions[0][2] for _, _, image in questions)
    file.write_text(json.dumps([*questions, "text", ["What?"]]))
    source = Source(kind="easy_vqa", path=str(tmp_path / "in"), split="test")
    data = DataPrep(max_quarantined=1.0)
    manifest = prepare([source], RowKind.SFT, tmp_path / "out", data=data, seed=0)
    assert manifest.quarantined == {"no image data": lost, "damaged record": 2}


def test_puzzle_vqa_counts(puzzles, real_data):
    from siqvl.data.sources.official.puzzlevqa import read_items, templates

    folder = real_data / "puzzlevqa"
    assert sum(len(read_items(folder, name)) for name in templates(folder)) == 2_000
    everything = list(sources.rows(puzzles(), RowKind.EVALUATION, 0))
    assert len(everything) == 1_000  # images of the others are not in the snapshot
    split = {
        s: {r["id"] for r in sources.rows(puzzles(s), RowKind.EVALUATION, 0)}
        for s in ("train", "test")
    }
    assert (len(split["train"]), len(split["test"])) == (800, 200)
    assert not split["train"] & split["test"]
    floor = sum(1 / len(row["choices"]) for row in everything) / len(everything)
    assert round(100 * floor, 1) == 26.7
    for row in everything:
        assert row["answers"][0] in row["choices"]
        assert all(isinstance(option, str) for option in row["choices"])


def test_a_damaged_puzzle_costs_one_row(puzzles, real_data, tmp_path):
    import json

    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "images.zip").symlink_to(next((real_data / "puzzlevqa").glob("*.zip")))
    lines = (real_data / "puzzlevqa" / "venn.json").read_text().splitlines()
    whole = puzzles(subsets=["venn"]).model_copy(update={"path": str(folder)})
    (folder / "venn.json").write_text("\n".join(lines))
    count = len(list(sources.rows(whole, RowKind.SFT, 0)))
    item = json.loads(lines[0])
    broken = [
        *("[" * 100_000, lines[0][:99], "3"),
        *(json.dumps(item | changes) for changes in ({"image": 3}, {"options": []})),
        json.dumps(item | {"options": [item["answer"]]}),
    ]
    (folder / "venn.json").write_text("\n".join([*lines, *broken]))
    for kind in RowKind:
        rows = list(sources.rows(whole, kind, 0))
        assert len(rows) == count + len(broken)
        assert [row["damaged"] for row in rows if "damaged" in row] == [
            f"line {len(lines) + number} of venn.json is no item of PuzzleVQA"
            for number in range(1, len(broken) + 1)
        ]


def test_puzzle_vqa_reasoning_ends_in_the_answer(puzzles):
    for row in sources.rows(puzzles(), RowKind.SFT, 0):
        prompt, completion = row["prompt"][0]["content"], row["completion"][0]["content"]
        assert prompt.endswith(REASONING_PROMPT)
        assert "\nOptions: " in prompt
        answer = completion.rpartition(ANSWER_MARKER)[2].strip()
        options = prompt.partition("\nOptions: ")[2].partition("\n")[0].split(", ")
        assert answer in options


def test_puzzle_vqa_pairs_differ_in_what_they_conclude(puzzles):
    rows = list(sources.rows(puzzles(), RowKind.PREFERENCE, 0))
    replaced = 0
    for row in rows:
        chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
        right, wrong = (t.rpartition(ANSWER_MARKER)[2].strip() for t in (chosen, rejected))
        assert right != wrong
        steps = [t.rpartition(ANSWER_MARKER)[0] for t in (chosen, rejected)]
        replaced += steps[0] != steps[1]
    assert replaced > 0.95 * len(rows)
    again = list(sources.rows(puzzles(), RowKind.PREFERENCE, 0))
    assert again == rows


def test_puzzle_vqa_templates_can_be_held_out(puzzles):
    rows = list(sources.rows(puzzles(subsets=["venn", "triangle"]), RowKind.EVALUATION, 0))
    assert len(rows) == 100
    assert {r["source"] for r in rows} == {
        "puzzlevqa/venn",
        "puzzlevqa/triangle",
    }


def test_wrong_subsets_and_splits(easy, puzzles):
    expected = {
        "source `easy_vqa`: unknown split `dev`; it has train, test": easy("dev"),
        "source `easy_vqa`: unknown subset `x`; it has none": easy(subsets=["x"]),
        "source `puzzlevqa`: unknown split `dev`; it has train, test, all": puzzles("dev"),
    }
    for message, source in expected.items():
        with pytest.raises(UserError) as error:
            sources.check(source, RowKind.SFT)
        assert error.value.message == message
    with pytest.raises(UserError, match="unknown subset `ven`; it has circle_size_number, "):
        sources.check(puzzles(subsets=["ven"]), RowKind.SFT)


@pytest.mark.parametrize("name", ["easy", "puzzles"])
def test_loss_is_on_the_answer_with_the_real_tokenizer(request, real_processor, name):
    source = request.getfixturevalue(name)("train", max_samples=100)
    decode = real_processor.tokenizer.decode
    for row in sources.rows(source, RowKind.SFT, 0):
        encoded = encode_sft(row, real_processor)
        learned = decode([label for label in encoded.labels if label != -100])
        assert learned == row["completion"][0]["content"] + "<|im_end|>"
    for row in sources.rows(source, RowKind.PREFERENCE, 0):
        for side, encoded in zip(
            ("chosen", "rejected"), encode_preference(row, real_processor), strict=True
        ):
            learned = decode([label for label in encoded.labels if label != -100])
            assert learned == row[side][0]["content"] + "<|im_end|>"


def test_published_data_is_prepared_without_a_bad_row(easy, puzzles, tmp_path):
    chosen = [easy(max_samples=300), puzzles(max_samples=60)]
    for kind in RowKind:
        manifest = prepare(chosen, kind, tmp_path / kind, data=DataPrep(), seed=0)
        assert (manifest.rows, manifest.quarantined, manifest.images) == (360, {}, 360)
        rows, _ = load_prepared(tmp_path / kind, kind)
        assert rows[0]["images"][0].size == (64, 64)
        assert rows[359]["images"][0].size == (512, 512)
