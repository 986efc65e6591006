"""The rows both sides train on, prepared once by `siqvl.data`, and the form TRL takes them.

Models for a CPU see the generated world of `siqvl.data.shapes`. `full` sees tables of made
conversations as long as published ones are: answers are log-normal, some 100 to 700 tokens a row
with the 81 of its picture, noise of 384 pixels a side.
"""

from __future__ import annotations

import json
import random
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.training.parts import load
from benchmarks.training.scenario import Scenario, recipe_for
from siqvl.data.preparation.prepare import prepare
from siqvl.data.shards import load_prepared
from siqvl.recipe import DataPrep, Source
from siqvl.stages import STAGES

if TYPE_CHECKING:
    from datasets import Dataset

#: Shares of the rows of a stage, by family of the generated world.
FAMILIES = {
    "1": {"captions": 1.0},
    "2": {"vqa": 0.5, "captions": 0.2, "reasoning": 0.3},
    "dpo": {"reasoning": 1.0},
}
SIZES_FILE = "sizes.json"
MOST_WORDS = {"1": 480, "2": 480, "dpo": 320}
#: Common words, each a token of Qwen's, or two.
WORDS = """
the of and a in is on with that for as it at by from this are an be which one two left right above
below behind person street table window building tree water light dark red green blue white small
large round wooden holding standing sitting near between several picture scene
"""


def make_sources(scenario: Scenario) -> list[dict[str, Any]]:
    """The stage's sources; a made table is written if it is not there."""
    if scenario.model == "full":
        return [{"kind": "table", "path": str(_made_table(scenario))}]
    shares = FAMILIES[scenario.stage]
    counts = {family: int(share * scenario.rows) for family, share in shares.items()}
    counts[next(iter(counts))] += scenario.rows - sum(counts.values())
    return [
        {"kind": "shapes", "subsets": [family], "max_samples": count}
        for family, count in counts.items()
    ]


def make_rows(scenario: Scenario, sources: list[dict[str, Any]]) -> None:
    """Prepare the rows, and note beside them how large each is to the model.

    Raises:
        RuntimeError: preparation or the limits of the stage left rows out, so that the two sides
            would not train on the same ones.
    """
    if (scenario.data / SIZES_FILE).exists():
        return
    from siqvl.data.encode import encode_dataset
    from siqvl.training.figures.work import ItemWork

    kind = STAGES[scenario.recipe_stage].rows
    data = DataPrep(duplicates="none")
    prepare([Source(**source) for source in sources], kind, scenario.data, data=data, seed=0)
    dataset, _ = load_prepared(scenario.data, kind)
    recipe = recipe_for(scenario, sources, {}, scenario.work)
    _, processor = load(scenario, recipe, scenario.parent)
    length = recipe.stage(scenario.recipe_stage).max_length
    encoded = encode_dataset(dataset, processor, kind=kind, max_length=length)
    if len(encoded) != scenario.rows:
        raise RuntimeError(f"{len(encoded)} of {scenario.rows} rows are left to train on")
    import numpy as np

    sizes: dict[str, Any] = {"lengths": encoded.lengths}
    for name, shared in (("apart", False), ("shared", True)):
        work = ItemWork(encoded, shared_prompt=shared).total(np.arange(len(encoded)))
        sizes[name] = {size: total / len(encoded) for size, total in asdict(work).items()}
    (scenario.data / SIZES_FILE).write_text(json.dumps(sizes))


def sizes_of(scenario: Scenario) -> dict[str, Any]:
    """`lengths` [rows] in tokens, and means a row of each size of `Work`.

    Tokens are those of our encoding, pictures included and padding not. The means are `apart` and
    `shared`, which differ for pairs alone: whether a prompt counts for each completion, or once.
    """
    return json.loads((scenario.data / SIZES_FILE).read_text())


def mean_length(scenario: Scenario) -> float:
    """Tokens of a row, of the longer side of a pair."""
    return statistics.fmean(sizes_of(scenario)["lengths"])


def trl_rows(scenario: Scenario) -> Dataset:
    """The rows in TRL's conversational form: prompt, images, and completion or chosen, rejected.

    `length` is there for TrainingArguments' group_by_length, which asks for it.
    """
    dataset, _ = load_prepared(scenario.data, STAGES[scenario.recipe_stage].rows, verify=False)
    names = (
        ["prompt", "chosen", "rejected"] if scenario.stage == "dpo" else ["prompt", "completion"]
    )
    return dataset.select_columns([*names, "images"]).add_column(
        "length", sizes_of(scenario)["lengths"]
    )


def _made_table(scenario: Scenario) -> Path:
    import numpy as np
    from PIL import Image

    folder = scenario.work / f"table-{scenario.stage}-{scenario.rows}"
    table = folder / "train.jsonl"
    if table.exists():
        return table
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng, noise = random.Random(0), np.random.default_rng(0)
    lines = []
    for index in range(scenario.rows):
        pixels = noise.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((384, 384), Image.Resampling.BICUBIC)
        picture.save(folder / "images" / f"{index}.jpg", quality=90)
        row = {"id": index, "image": f"images/{index}.jpg", "question": f"{_words(rng, 12)}?"}
        answers = ("chosen", "rejected") if scenario.stage == "dpo" else ("answer",)
        for answer in answers:
            drawn = int(rng.lognormvariate(4.6, 0.8))
            row[answer] = _words(rng, max(8, min(MOST_WORDS[scenario.stage], drawn)))
        lines.append(json.dumps(row))
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS.split(), k=count))
