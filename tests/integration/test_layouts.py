"""One recipe that mixes every layout there is, through all four stages and their evaluation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from siqvl.checkpoint import read_card
from siqvl.data.manifest import Manifest
from siqvl.recipe import Recipe, Source, Stage
from tests.data.sources.published_layouts import LAYOUTS, color, gallery, put

pytestmark = pytest.mark.integration
Turns = list[dict[str, Any]]


def conversation(*said: Any, keys: tuple[str, str] = ("role", "content")) -> Turns:
    roles = ("user", "assistant") if keys[0] == "role" else ("human", "gpt")
    return [{keys[0]: roles[at % 2], keys[1]: text} for at, text in enumerate(said)]


def lines(folder: Path, name: str, rows: list[dict[str, Any]], **keys: Any) -> Source:
    put(folder / name, "".join(json.dumps(row) + "\n" for row in rows))
    return Source(kind="table", path=str(folder / name), **keys)


def messages(folder: Path) -> list[Source]:
    """Conversations as TRL, LLaVA, LLaMA-Factory and ms-swift have them, six rows each."""
    for number in range(40):
        put(folder / f"{number}.png", color(500 + number))
    typed = [{"type": "image"}, {"type": "text", "text": "What color?"}]
    rows: dict[str, Callable[[int], dict[str, Any]]] = {
        "typed": lambda n: {"images": [f"{n}.png"], "messages": conversation(typed, f"c{n}")},
        "trl": lambda n: {
            "image": f"{n}.png",
            "prompt": conversation(f"Which, {n}?"),
            "completion": [{"role": "assistant", "content": f"c{n}"}],
        },
        "placed": lambda n: {
            "images": [f"{n}.png", f"{n + 10}.png"],
            "conversations": conversation(
                "<image>\nWhat is this?",
                "red",
                f"And {n}: <image> now?",
                "b",
                keys=("from", "value"),
            ),
        },
        "alpaca": lambda n: {"instruction": f"Say {n}.", "input": "", "output": f"c{n}"},
        "swift": lambda n: {
            "query": f"<image>Which is {n}?",
            "response": "r",
            "images": [f"{n}.png"],
        },
        "listed": lambda n: {
            "image": f"{n}.png",
            "conversations": {"role": ["user", "assistant"], "content": [f"What, {n}?", "x"]},
        },
    }
    return [
        lines(folder, f"{name}.jsonl", [row(number) for number in range(6)])
        for name, row in rows.items()
    ]


def pairs(folder: Path) -> list[Source]:
    answer = [{"role": "assistant", "content": "good"}], [{"role": "assistant", "content": "bad"}]
    trl = [
        {"images": [f"{n}.png"], "prompt": conversation(f"Is {n} so?")}
        | {"chosen": answer[0], "rejected": answer[1]}
        for n in range(6)
    ]
    plain = [
        {"image": f"{n}.png", "question": f"What is {n}?", "chosen": "[1, 2]", "rejected": "no"}
        for n in range(6)
    ]
    asked = [conversation(f"Which, {n}?", keys=("from", "value")) for n in range(6)]
    factory = [
        {"images": [f"{n}.png"], "conversations": turns, "chosen": {"from": "gpt", "value": "a"}}
        | {"rejected": {"from": "gpt", "value": "b"}}
        for n, turns in enumerate(asked)
    ]
    return [
        lines(folder, f"{name}.jsonl", rows)
        for name, rows in (("trl_pairs", trl), ("plain_pairs", plain), ("factory", factory))
    ]


def test_every_layout_in_one_recipe(
    tmp_path: Path, small_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workflows.full_pipeline import full_pipeline

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SETS", str(tmp_path / "sets"))
    counts = {name: layout(tmp_path / "sets") for name, layout in LAYOUTS.items()}
    published = {name: found for name, found in gallery().items()}
    every = [source for found in published.values() for source in found]
    reasoned = {"reasoning": "solution"}
    scienceqa, tabmwp = published["ScienceQA"][0], published["TabMWP"][0]
    steps = [
        source.model_copy(update={"columns": source.columns | reasoned})
        for source in (scienceqa, tabmwp)
    ]
    content = small_recipe(tmp_path).model_dump(mode="json")
    by_stage = {
        "projector_alignment": [*published["DAQUAR"][:1], scienceqa],
        "vqa_sft": [*every, *messages(tmp_path / "sets" / "messages")],
        "cot_sft": steps,
        "dpo": pairs(tmp_path / "sets" / "messages"),
    }
    for stage, sources in by_stage.items():
        content["stages"][stage]["sources"] = [one.model_dump(mode="json") for one in sources]
    # the sets share pictures with their own benchmarks: what is prepared is counted here
    content["data"] |= {"leaks": "none", "duplicates": "none", "processes": 2}
    benchmarks = {
        "choice": published["VLMEvalKit"][0],
        "marks": published["MMMU"][0],
        "daquar": published["DAQUAR"][1],
    }
    content["evaluation"]["benchmarks"] = [
        {"name": name, "source": source.model_dump(mode="json"), "blind": ["no_picture"]}
        | {"scorer": "exact_match" if name == "daquar" else "choice", "max_new_tokens": 4}
        for name, source in benchmarks.items()
    ]
    content["evaluation"]["champion_benchmark"] = None
    full_pipeline(recipe=Recipe.model_validate(content))
    (run,) = (tmp_path / "outputs" / "tiny").iterdir()
    assert read_card(run / "checkpoints" / "dpo").stage is Stage.DPO
    prepared = {stage: Manifest.read(run / "data" / stage) for stage in by_stage}
    of_gallery = [len(rows) for name in published for rows in counts[name].values()]
    assert prepared["vqa_sft"].rows_of_sources == of_gallery + [6] * 6
    assert prepared["dpo"].rows_of_sources == [6, 6, 6]
    assert all(manifest.quarantined == {} for manifest in prepared.values())
    readings = {
        source.path.rpartition("/")[2]: rows.choices_are
        for source, rows in zip(
            prepared["vqa_sft"].sources, prepared["vqa_sft"].of_sources, strict=True
        )
        if source.path
    }
    assert readings["problems.json"] == "index0"
    assert readings["mmmu"] == "letter"
    assert readings["key"] is None
    asked = {name: Manifest.read(run / "data" / "evaluation" / name).rows for name in benchmarks}
    assert asked == {"choice": 2, "marks": 6, "daquar": 6}
