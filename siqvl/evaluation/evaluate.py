"""Score a checkpoint on the benchmarks of its stage, with and without the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from siqvl.atomic_folder import atomic_folder
from siqvl.data.encoded import Item
from siqvl.data.manifest import Manifest
from siqvl.data.schema import Row, RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.evaluation.answer import answer, prompt_item
from siqvl.evaluation.benchmarks import read_floors
from siqvl.evaluation.floors import Floors
from siqvl.evaluation.metrics import SCORER, bootstrap_interval, exact_match, extract_answer
from siqvl.evaluation.report import PICTURES, Sample, pick_samples, write_report
from siqvl.evaluation.scores import Result, Score, Scores
from siqvl.recipe import Benchmark, Player, Recipe
from siqvl.training.checkpoints import read_card

if TYPE_CHECKING:
    from datasets import Dataset

PREDICTIONS = "predictions.parquet"


class Prepared(NamedTuple):
    """A benchmark of the recipe with its rows, read and verified once."""

    benchmark: Benchmark
    dataset: Dataset
    manifest: Manifest
    floors: Floors


def evaluate(recipe: Recipe, *, checkpoint: Path, data: Path, out: Path) -> Scores:
    """Write an EvalReport to `out`: `scores.json`, `predictions.parquet`, `report.html`.

    Raises:
        UserError: no checkpoint, no benchmark of this stage in the recipe, or an unprepared one.
    """
    card = read_card(checkpoint)
    benchmarks = [b for b in recipe.evaluation.benchmarks if card.stage in b.stages]
    if not benchmarks:
        raise UserError(f"recipe `{recipe.name}` scores no benchmark after stage `{card.stage}`")
    prepared = []  # everything is there before the model is loaded
    for benchmark in benchmarks:
        floors = read_floors(data, benchmark)
        rows, manifest = load_prepared(data / benchmark.name, RowKind.EVALUATION)
        prepared.append(Prepared(benchmark, rows, manifest, floors))

    from siqvl.model.assemble import load_checkpoint

    model, processor = load_checkpoint(checkpoint, attn_implementation=recipe.model.attention)
    model.to(_device())  # type: ignore[arg-type]  # transformers wraps `to` untyped
    scores: list[Score] = []
    predictions: list[Row] = []
    samples: list[Sample] = []
    for one in prepared:
        score, answered = _evaluate_one(recipe, one, model, processor)
        scores.append(score)
        predictions += answered
        samples += pick_samples(answered, one.dataset, PICTURES // len(benchmarks))
    report = Scores(
        stage=card.stage,
        random_tower=card.recipe.model.random_tower,
        checkpoint_hash=card.hash,
        scores=scores,
    )
    with atomic_folder(out) as partial:
        report.write(partial)
        _write_predictions(predictions, partial / PREDICTIONS)
        write_report(report, samples, partial / "report.html")
    return report


def answer_shard(
    recipe: Recipe, *, checkpoint: Path, data: Path, out: Path, shard: int, shards: int
) -> None:
    """Answer every `shards`-th question of each benchmark, from number `shard` on."""
    raise NotImplementedError


def merge_answers(
    answered: list[Path], recipe: Recipe, *, checkpoint: Path, data: Path, out: Path
) -> Scores:
    """The EvalReport of what `answer_shard` wrote, equal to that of `evaluate`."""
    raise NotImplementedError


def _evaluate_one(
    recipe: Recipe, prepared: Prepared, model: Any, processor: Any
) -> tuple[Score, list[Row]]:
    """Score one benchmark; returns its score and a row per question."""
    import numpy as np

    benchmark, dataset = prepared.benchmark, prepared.dataset
    decoding: dict[str, Any] = {
        "max_new_tokens": benchmark.max_new_tokens,
        "batch_size": recipe.evaluation.batch_size,
    }
    common = {"suffix": benchmark.prompt_suffix, **decoding}
    sighted = answer(model, processor, dataset, title=benchmark.name, **common)
    blind = answer(
        model, processor, dataset, title=f"{benchmark.name}, image removed", blind=True, **common
    )
    texts = dataset.select_columns(["id", "question", "answers"]).to_list()
    predictions = [
        _prediction(benchmark, *answered) for answered in zip(texts, sighted, blind, strict=True)
    ]
    correct = np.array([row["correct"] for row in predictions])
    blind_correct = np.array([row["blind_correct"] for row in predictions])
    players: dict[Player, Result] = {
        player: Result(
            mean=float(scores.mean()), interval=bootstrap_interval(scores, seed=recipe.seed)
        )
        for player, scores in {"picture": correct, "no_picture": blind_correct}.items()
    }
    score = Score(
        benchmark=benchmark.name,
        questions=len(predictions),
        players=players,
        lead={},
        types={},
        method=benchmark.method,
        prompt=_shown(
            prompt_item(dataset[0], processor, benchmark.prompt_suffix, blind=False), processor
        ),
        decoding={"method": "greedy", **decoding},
        scorer=SCORER,
        data_fingerprint=prepared.manifest.fingerprint,
    )
    return score, predictions


def _prediction(benchmark: Benchmark, row: Row, generation: str, blind_generation: str) -> Row:
    """One line of predictions.parquet."""
    given = extract_answer(generation, benchmark.answer_marker)
    blind_given = extract_answer(blind_generation, benchmark.answer_marker)
    return {
        "benchmark": benchmark.name,
        "id": row["id"],
        "question": row["question"],
        "answers": row["answers"],
        "generation": generation,
        "answer": given,
        "correct": exact_match(given, row["answers"]),
        "blind_generation": blind_generation,
        "blind_answer": blind_given,
        "blind_correct": exact_match(blind_given, row["answers"]),
    }


def _shown(item: Item, processor: Any) -> str:
    """The prompt as text, one placeholder an image instead of its many tokens."""
    text = processor.tokenizer.decode(item["input_ids"])
    return text.replace(processor.image_token * processor.num_image_tokens, processor.image_token)


def _write_predictions(predictions: list[Row], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(predictions), path)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
