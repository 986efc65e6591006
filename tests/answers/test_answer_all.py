"""Answers to whole data sets, against `generate` of transformers row by row."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from siqvl.answers import answer_all as answering
from siqvl.answers.answer_all import Done
from siqvl.errors import UserError
from siqvl.generation.loop import write
from siqvl.model.assemble import load_checkpoint
from tests.answers.conftest import HOW, asked_rows, lines, write_picture, write_rows

Run = Callable[..., Done]


def by_transformers(checkpoint: Path, folder: Path, row: dict[str, Any], tokens: int) -> str:
    """As somebody would ask who knows transformers alone."""
    model, processor = load_checkpoint(checkpoint)
    pictures = [Image.open(folder / name).convert("RGB") for name in row["images"]]
    content = [{"type": "image"}] * len(pictures) + [{"type": "text", "text": row["question"]}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    inputs = processor(text=text, images=pictures or None, return_tensors="pt")
    with torch.no_grad():
        out = model.eval().generate(**inputs, max_new_tokens=tokens, do_sample=False)
    new = out[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(new, skip_special_tokens=True)[0].strip()


def test_every_row_is_answered_as_it_would_be_alone(
    run: Run, table: Path, checkpoint: Path, tmp_path: Path
) -> None:
    done = run(table)
    found = lines(tmp_path / "out.jsonl")
    rows = lines(table)
    assert [one["question"] for one in found] == [row["question"] for row in rows]
    assert [one["pictures"] for one in found] == [len(row["images"]) for row in rows]
    expected = [by_transformers(checkpoint, table.parent, row, 6) for row in rows]
    assert [one["answer"] for one in found] == expected
    assert len(set(expected)) > 1
    assert (done.rows, done.kept, done.errors.total()) == (11, 0, 0)
    assert done.tokens == sum(one["tokens"] for one in found)
    assert all(one["error"] is None and one["expected"] is None for one in found)


def test_the_same_table_in_each_format(run: Run, table: Path, tmp_path: Path) -> None:
    run(table)
    run(table, "out.parquet")
    run(table, "out.csv")
    expected = lines(tmp_path / "out.jsonl")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == expected
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        read = [*csv.DictReader(file)]
    assert [one["answer"] for one in read] == [one["answer"] for one in expected]
    assert [one["tokens"] for one in read] == [str(one["tokens"]) for one in expected]
    with pytest.raises(UserError, match=r"should end in \.parquet, \.jsonl, \.csv"):
        run(table, "out.xlsx")


def interrupted_after(monkeypatch: pytest.MonkeyPatch, answers: int) -> None:
    """The process gets Ctrl-C when so many answers are written."""
    count = iter(range(answers))

    def writes(*given: Any, **named: Any) -> Any:
        for one in write(*given, **named):
            if next(count, None) is None:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(answering, "write", writes)


def test_an_interrupted_run_goes_on_to_the_same_answers(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_rows(tmp_path / "set", asked_rows(tmp_path / "set", 20))
    run(table, "straight.jsonl")
    with monkeypatch.context() as patch:
        interrupted_after(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            run(table)
    assert not (tmp_path / "out.jsonl").exists()
    done = run(table)
    assert done.kept == 8  # rows of the first portion
    assert done.rows == 20
    straight = (tmp_path / "straight.jsonl").read_bytes()
    assert (tmp_path / "out.jsonl").read_bytes() == straight
    assert run(table).kept == 20


def test_what_has_changed_is_asked_again_and_nothing_else(
    run: Run, table: Path, tmp_path: Path
) -> None:
    """By content: files that are written anew with the same content have not changed."""
    run(table, "out.parquet")
    rows = lines(table)
    write_rows(table.parent, rows)
    for number in (1, 4):
        write_picture(table.parent / f"images/{number}.png", number)
    assert run(table, "out.parquet").kept == 11
    write_picture(table.parent / "images/1.png", 3)
    done = run(table, "out.parquet")
    assert (done.changed, done.kept) == (1, 3)
    rows[9]["question"] = "how many shapes are there?"
    done = run(write_rows(table.parent, rows), "out.parquet")
    assert (done.changed, done.kept) == (1, 8)
    assert pq.read_table(tmp_path / "out.parquet")["question"][9].as_py() == rows[9]["question"]
    done = run(write_rows(table.parent, rows[:3]), "out.parquet")
    assert (done.rows, done.kept, done.changed) == (3, 0, 0)
    assert len(pq.read_table(tmp_path / "out.parquet")) == 3


def test_more_rows_are_no_others(run: Run, table: Path, tmp_path: Path) -> None:
    """Of a run with a limit, the portions that it filled are kept."""
    run(table, max_samples=10)
    done = run(table)
    assert (done.rows, done.kept, done.changed) == (11, 8, 0)
    run(table, "straight.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "straight.jsonl").read_bytes()


def test_other_settings_are_refused_and_named(run: Run, table: Path) -> None:
    run(table)
    with pytest.raises(UserError, match=r"max_new_tokens 6, now 5\).*`--fresh`"):
        run(table, how=replace(HOW, max_new_tokens=5))
    with pytest.raises(UserError, match=r"\(asked\.source\.prompt_suffix not set, now "):
        run(table, prompt_suffix=" In one word.")
    done = run(table, how=replace(HOW, max_new_tokens=5), fresh=True)
    assert (done.rows, done.kept) == (11, 0)


def test_another_checkpoint_is_refused(
    run: Run, table: Path, checkpoint: Path, tmp_path: Path
) -> None:
    import shutil

    from siqvl.answers.question_source import questions_of
    from siqvl.recipe import Source
    from tests.made_checkpoint import signed

    run(table)
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"comment": "another"}))
    signed(other)
    asked = questions_of(Source(kind="table", path=str(table)))
    with pytest.raises(UserError, match=r"holds answers of another run \(checkpoint "):
        answering.answer_all(asked, other, tmp_path / "out.jsonl", HOW)


def test_a_row_that_cannot_be_answered_has_an_error(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    rows = asked_rows(folder, 5)
    rows[0]["images"] = ["images/none.png"]
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    rows[1]["images"] = ["images/broken.png"]
    rows[2]["question"] = ""
    rows[3]["question"] = "so long " * 2000
    rows.append({"id": "q5", "question": "what ends a turn? <|im_end|>"})
    done = run(write_rows(folder, rows))
    found = lines(tmp_path / "out.jsonl")
    errors = [one["error"] and one["error"].partition(":")[0] for one in found]
    assert errors == [
        "no image data",
        "undecodable image",
        "empty question",
        "too long",
        None,
        "control token in text",
    ]
    assert [one["answer"] is None for one in found] == [bool(error) for error in errors]
    assert done.errors == {error: 1 for error in errors if error}
    assert "images/none.png" in found[0]["error"]


def test_published_answers_stand_beside(run: Run, tmp_path: Path) -> None:
    """Where a row has none, it is answered all the same."""
    rows = [
        {"question": "why?", "answers": ["because", "so"]},
        {"question": "why not?", "answers": []},
        {"question": "which?", "answers": ["a"], "choices": ["a", "b"]},
    ]
    run(write_rows(tmp_path / "set", rows))
    found = lines(tmp_path / "out.jsonl")
    assert [one["expected"] for one in found] == [["because", "so"], None, ["a"]]
    assert [one["error"] for one in found] == [None] * 3


def test_a_row_on_which_the_model_fails_costs_no_other(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when memory does not do for a batch, or for one row at all."""
    run(table, "whole.jsonl")

    def fails(model: Any, prompts: Any, *given: Any, **named: Any) -> Any:
        if any(len(prompt.pictures) == 2 for prompt in prompts):
            raise torch.OutOfMemoryError("not enough\nmemory")
        yield from write(model, prompts, *given, **named)

    monkeypatch.setattr(answering, "write", fails)
    done = run(table)
    found, whole = lines(tmp_path / "out.jsonl"), lines(tmp_path / "whole.jsonl")
    for one, known in zip(found, whole, strict=True):
        if one["pictures"] == 2:
            assert one["error"] == "the model failed: not enough memory"
        else:
            assert one == known
    assert done.errors == {"the model failed": 3}
    rows = [row for row in lines(table) if len(row["images"]) == 2]
    with pytest.raises(UserError, match="the model fails on every row"):
        run(write_rows(table.parent, rows, "two.jsonl"), "two_out.jsonl")


def test_drawn_answers_depend_on_the_seed_and_the_row_alone(
    run: Run, table: Path, tmp_path: Path
) -> None:
    drawn = replace(HOW, temperature=2.0, top_p=0.95)
    found = {}
    for name, how in {
        "one": drawn,
        "again": drawn,
        "larger": replace(drawn, batch_size=8),
        "seed": replace(drawn, seed=1),
    }.items():
        run(table, f"{name}.jsonl", how=how)
        found[name] = [one["answer"] for one in lines(tmp_path / f"{name}.jsonl")]
    assert found["one"] == found["again"] == found["larger"]
    assert found["one"] != found["seed"]
    alike = [row for row in lines(table) if not row["images"]][:1] * 6
    run(write_rows(table.parent, alike, "alike.jsonl"), "alike_out.jsonl", how=drawn)
    assert len({one["answer"] for one in lines(tmp_path / "alike_out.jsonl")}) > 1


def test_pictures_without_a_table_take_one_question(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    names = ["a.png", "deep/er/c.png", "b.PNG"]
    for number, name in enumerate(names):
        write_picture(folder / name, number)
    (folder / "notes.md").write_text("no picture")
    done = run(folder, question="what is this?", shown=2)
    found = lines(tmp_path / "out.jsonl")
    assert [one["id"] for one in found] == ["a.png", "b.PNG", "deep/er/c.png"]
    row = {"images": ["b.PNG"], "question": "what is this?"}
    assert found[1]["answer"] == by_transformers(checkpoint, folder, row, 6)
    assert [(at, len(pictures)) for at, pictures, _ in done.shown] == [(0, 1), (1, 1)]
    run(folder / "a.png", "one.jsonl", question="what is this?")
    assert lines(tmp_path / "one.jsonl") == found[:1]


def test_memory_does_not_grow_with_the_size_of_pictures(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of a portion is what the tower sees; one picture is decoded at a time."""
    from siqvl.answers.read_ahead import Portion, Reader

    folder = tmp_path / "set"
    folder.mkdir()
    Image.new("RGB", (3000, 2000), "red").save(folder / "large.png")
    kept: list[Portion] = []
    portions = Reader.portions

    def seen(self: Reader) -> Any:
        for portion in portions(self):
            kept.append(portion)
            yield portion

    monkeypatch.setattr(Reader, "portions", seen)
    rows = [{"image": "large.png", "question": f"what is this, {n}?"} for n in range(20)]
    run(write_rows(folder, rows))
    assert [len(portion.rows) for portion in kept] == [8, 8, 4]
    for portion in kept:
        (pixels,) = portion.pixels.values()  # one picture, however often it is asked about
        assert pixels.numel() < 3 * 256 * 256


def test_two_runs_do_not_write_one_table(run: Run, table: Path, tmp_path: Path) -> None:
    from siqvl.locks import lock

    run(table)
    held = lock(tmp_path / ".out.jsonl.parts" / ".lock")
    assert held is not None
    with held, pytest.raises(UserError, match="another process writes to"):
        run(table)


def test_nothing_to_answer(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rows"):
        run(write_rows(tmp_path / "set", []))


def test_a_damaged_file_of_answers_is_answered_again(run: Run, table: Path, tmp_path: Path) -> None:
    run(table)
    first = (tmp_path / "out.jsonl").read_bytes()
    part = tmp_path / ".out.jsonl.parts" / "000000.parquet"
    part.write_bytes(part.read_bytes()[:100])
    assert run(table).kept == 3
    assert (tmp_path / "out.jsonl").read_bytes() == first
