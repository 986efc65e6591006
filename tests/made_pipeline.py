"""A pipeline's leavings, made up: benchmarks with pictures, four stages, their answers and losses.

How often a stage is right is chosen here, so a test knows what the page must say.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from siqvl.checkpoint import CARD, CheckpointCard, write_history
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.evaluation.scoring.intervals import bootstrap_interval
from siqvl.evaluation.scoring.predictions import PREDICTIONS, schema
from siqvl.evaluation.scoring.scores import Result, Score, Scores, TypeScore
from siqvl.recipe import PIPELINE, Recipe, Source, Stage
from tests.made_checkpoint import WEIGHTS, hash_of, weights_of

ROOT = Path(__file__).parent.parent
COLORS = {"red": "#d61e26", "blue": "#2654de", "green": "#18963e", "yellow": "#f6ca0e"}
SHAPES = ("circle", "square", "triangle")
VQA = ("color", "shape", "count", "where")
STEPS = ("sum", "compare", "count then compare")
LATE = [Stage.COT_SFT, Stage.DPO]

#: Benchmark -> its types, and the share of right answers by stage and by player.
WORLD: dict[str, tuple[tuple[str, ...], dict[Stage, float], dict[str, float]]] = {
    "vqa": (
        VQA,
        dict(zip(PIPELINE, (0.46, 0.931, 0.928, 0.934), strict=True)),
        {"no_picture": 0.255, "other_picture": 0.248, "majority": 0.09, "question_only": 0.25},
    ),
    "vqa-heldout": (
        VQA,
        dict(zip(PIPELINE, (0.35, 0.71, 0.69, 0.70), strict=True)),
        {"no_picture": 0.22, "other_picture": 0.21, "majority": 0.08, "question_only": 0.24},
    ),
    "multistep-direct": (
        STEPS,
        dict(zip(LATE, (0.52, 0.53), strict=True)),
        {"no_picture": 0.26, "other_picture": 0.28, "majority": 0.2, "question_only": 0.3},
    ),
    "multistep-reasoned": (
        STEPS,
        dict(zip(LATE, (0.78, 0.815), strict=True)),
        {"no_picture": 0.09, "other_picture": 0.24, "majority": 0.2, "question_only": 0.3},
    ),
    "preferences": (
        (),
        dict(zip(LATE, (0.71, 0.842), strict=True)),
        {"no_picture": 0.5, "other_picture": 0.49},
    ),
}
CONTROL = {"vqa": 0.262}
#: First and last loss and logged steps of every stage.
LOSSES = [(4.6, 0.55, 60), (1.4, 0.06, 900), (0.9, 0.22, 70), (0.69, 0.31, 40)]
#: Type -> a question, its right answer and a wrong one.
ASKED = {
    "color": ("what color is the square?", "red", "yellow"),
    "shape": ("what is the blue thing?", "circle", "triangle"),
    "count": ("how many objects are there?", "3", "2"),
    "where": ("where is the triangle?", "top left", "bottom right"),
    "sum": ("how many circles and squares are there together?", "5", "4"),
    "compare": ("are there more circles than squares?", "no", "yes"),
    "count then compare": ("which are there more of, red or blue things?", "blue", "red"),
    "": ("describe the picture.", "a red circle", "a blue square"),
}

GATES: list[dict[str, Any]] = [
    {
        "claim": "after projector alignment the model answers vqa better than blind",
        "stage": "projector_alignment",
        "benchmark": "vqa",
        "over": {"player": "no_picture"},
    },
    {
        "claim": "a tower of random weights stays at the floor",
        "stage": "projector_alignment",
        "benchmark": "vqa",
        "random_tower": True,
        "over": {"player": "no_picture", "random_tower": True},
        "above": None,
        "below": 0.05,
    },
    {
        "claim": "after VQA SFT the model answers vqa better than after projector alignment",
        "stage": "vqa_sft",
        "benchmark": "vqa",
        "over": {"stage": "projector_alignment"},
    },
    {
        "claim": "written reasoning beats direct answers on multi-step questions",
        "stage": "cot_sft",
        "benchmark": "multistep-reasoned",
        "over": {"benchmark": "multistep-direct"},
    },
    {
        "claim": "learning to reason costs direct answers less than a point",
        "stage": "cot_sft",
        "benchmark": "vqa",
        "over": {"stage": "vqa_sft"},
        "above": -0.01,
    },
    {
        "claim": "after DPO the right completion of a held-out pair is preferred more often",
        "stage": "dpo",
        "benchmark": "preferences",
        "over": {"stage": "cot_sft"},
    },
]


@dataclass(frozen=True)
class Made:
    """Where everything is."""

    recipe: Recipe
    benchmarks: Path
    checkpoints: list[Path]
    reports: list[Path]
    control: Path


def made_recipe(pictures: int = 24) -> Recipe:
    """The tiny recipe with the benchmarks and gates above."""
    content = Recipe.load(ROOT / "recipes" / "tiny.yaml").model_dump(mode="json")
    content["evaluation"] |= {
        "benchmarks": [
            {
                "name": name,
                "source": {"kind": "table", "path": "made.jsonl"},
                "stages": list(right),
                "method": "preference" if name == "preferences" else "generation",
            }
            for name, (_, right, _) in WORLD.items()
        ],
        "random_tower": True,
        "gates": GATES,
        "report_pictures": pictures,
    }
    return Recipe.model_validate(content)


def make_pipeline(
    folder: Path, questions: int, edit: Callable[[list[dict]], None] | None = None
) -> Made:
    """Write it all.

    Args:
        edit: changes the questions of every benchmark before they are used.
    """
    recipe = made_recipe()
    asked = {name: _questions(name, types, questions) for name, (types, _, _) in WORLD.items()}
    asked["multistep-reasoned"] = asked["multistep-direct"]
    for rows in asked.values():
        if edit:
            edit(rows)
    for name, rows in asked.items():
        if name != "preferences":
            _prepare(folder / "benchmarks" / name, rows, recipe)
    for name, rows in list(asked.items()):  # a preparation names rows by their file too
        if name != "preferences":
            prepared, _ = load_prepared(folder / "benchmarks" / name, RowKind.EVALUATION)
            asked[name] = [row | {"id": id} for row, id in zip(rows, prepared["id"], strict=True)]
    reports = [_report(folder / "evaluation" / stage, stage, asked) for stage in PIPELINE]
    return Made(
        recipe=recipe,
        benchmarks=folder / "benchmarks",
        checkpoints=[
            _checkpoint(folder / "checkpoints" / stage, stage, recipe) for stage in PIPELINE
        ],
        reports=reports,
        control=_report(folder / "evaluation" / "control", next(iter(Stage)), asked, control=True),
    )


def _questions(name: str, types: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    kinds = types or ("",)
    rows = []
    for index in range(count):
        kind = kinds[index % len(kinds)]
        question, answer, wrong = ASKED[kind]
        about = {"question": question, "answer": answer, "wrong": wrong}
        rows.append({"id": f"{name}-{index:05d}", "type": kind, **about})
    return rows


def _prepare(out: Path, rows: list[dict[str, Any]], recipe: Recipe) -> None:
    folder = out.with_name(f"{out.name}-published")
    folder.mkdir(parents=True)
    lines = []
    for index, row in enumerate(rows):
        image = f"{index}.png"
        _draw(random.Random(f"{out.name}{index}")).save(folder / image)
        published = {name: row[name] for name in ("id", "question", "answer")}
        lines.append(json.dumps(published | {"image": image}))
    (folder / "table.jsonl").write_text("\n".join(lines))
    source = Source(kind="table", path=str(folder / "table.jsonl"))
    prepare([source], RowKind.EVALUATION, out, data=recipe.data, seed=0)


def _draw(rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (64, 64), rng.choice(["#f4f4f0", "#e8eef6", "#f6efe6"]))
    pen = ImageDraw.Draw(image)
    for corner in rng.sample(range(4), rng.randint(2, 4)):
        x, y, side = corner % 2 * 32 + rng.randint(3, 7), corner // 2 * 32 + rng.randint(3, 7), 20
        box, color = (x, y, x + side, y + side), COLORS[rng.choice(list(COLORS))]
        shape = rng.choice(SHAPES)
        if shape == "circle":
            pen.ellipse(box, fill=color)
        elif shape == "square":
            pen.rectangle(box, fill=color)
        else:
            pen.polygon([(x, y + side), (x + side, y + side), (x + side / 2, y)], fill=color)
    return image


def _report(
    out: Path, stage: Stage, asked: dict[str, list[dict[str, Any]]], *, control: bool = False
) -> Path:
    rows: list[dict[str, Any]] = []
    scores: list[Score] = []
    for name, (_, right, others) in WORLD.items():
        share = CONTROL.get(name) if control else right.get(stage)
        if share is None:
            continue
        players = {"picture": share, **others}
        own = [
            _prediction(name, player, row, float(easy < players[player]))
            for player in players
            for row, easy in _difficulty(name, player, stage, asked[name])
        ]
        rows += own
        scores.append(_score(name, own))
    out.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema()), out / PREDICTIONS)
    hash = "f" * 64 if control else hash_of(stage)
    Scores(stage=stage, random_tower=control, checkpoint_hash=hash, scores=scores).write(out)
    return out


def _difficulty(
    name: str, player: str, stage: Stage, rows: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], float]]:
    """A question is about as hard for every stage, which is why pairing pays."""
    seed = sum(map(ord, player.replace("picture", "")))
    shared = np.random.default_rng(seed).permutation(len(rows))
    noise = np.random.default_rng(list(PIPELINE).index(stage)).normal(0, 0.04, len(rows))
    ranks = np.argsort(np.argsort(shared / len(rows) + noise))
    return [(row, rank / len(rows)) for row, rank in zip(rows, ranks, strict=True)]


def _prediction(name: str, player: str, row: dict[str, Any], score: float) -> dict[str, Any]:
    answer = row["answer"] if score else row["wrong"]
    reasoned = name == "multistep-reasoned" and player == "picture"
    steps = "top left: a red circle. top right: a blue square. 2 and 3 make 5.\nAnswer: "
    return {
        "benchmark": name,
        "id": row["id"],
        "player": player,
        "type": row["type"],
        "question": row["question"],
        "answers": [row["answer"]],
        "choices": [],
        "generation": (steps if reasoned else "") + answer,
        "answer": answer,
        "margin": (1.0 if score else -1.0) if name == "preferences" else None,
        "score": score,
    }


def _score(name: str, rows: list[dict[str, Any]]) -> Score:
    kinds = dict.fromkeys(row["type"] for row in rows if row["type"])
    return Score(
        benchmark=name,
        questions=len({row["id"] for row in rows}),
        players=_results(rows),
        lead={},
        types={
            kind: TypeScore(
                questions=len({row["id"] for row in rows if row["type"] == kind}),
                players=_results([row for row in rows if row["type"] == kind]),
            )
            for kind in kinds
        },
        method="preference" if name == "preferences" else "generation",
        scorer="exact_match/1",
        prompt="",
        decoding={},
        data_fingerprint="0" * 64,
    )


def _results(rows: list[dict[str, Any]]) -> dict[Any, Result]:
    by_player: dict[str, list[float]] = {}
    for row in rows:
        by_player.setdefault(row["player"], []).append(row["score"])
    return {
        player: Result(
            mean=float(np.mean(scores)),
            interval=bootstrap_interval(np.array(scores), resamples=200),
        )
        for player, scores in by_player.items()
    }


def _checkpoint(out: Path, stage: Stage, recipe: Recipe) -> Path:
    out.mkdir(parents=True)
    number = list(PIPELINE).index(stage)
    card = CheckpointCard(
        stage=stage,
        hash=hash_of(stage),
        parent=hash_of(list(PIPELINE)[number - 1]) if number else None,
        parent_stage=list(PIPELINE)[number - 1] if number else None,
        recipe=recipe.model_dump(mode="json"),
        recipe_hash=recipe.hash(),
        data_fingerprint="d" * 64,
        code_version="0123456789abcdef",
        mlflow_run=None,
        metrics={"train_runtime": 71.0 + 10 * number},
    )
    (out / CARD).write_text(card.model_dump_json())
    (out / WEIGHTS).write_bytes(weights_of(stage))
    rng = random.Random(number)
    start, end, length = LOSSES[number]
    losses = [end + (start - end) * math.exp(-5 * step / length) for step in range(length)]
    noisy = [loss * rng.uniform(0.85, 1.15) for loss in losses]
    write_history([{"step": 10 * n, "loss": loss} for n, loss in enumerate(noisy, start=1)], out)
    return out
