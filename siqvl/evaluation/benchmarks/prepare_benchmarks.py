"""Prepare a recipe's benchmarks: one directory of rows each, with the guessers' answers beside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from siqvl.composed_text import composed
from siqvl.data import sources
from siqvl.data.preparation.distinct_pictures import HeldOut
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import Row, RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.evaluation.benchmarks.baselines import baseline_answers
from siqvl.evaluation.benchmarks.benchmark_rows import TYPES, told
from siqvl.evaluation.benchmarks.held_out import (
    SAMPLED_LATER,
    alone_with_benchmarks,
    content_key,
    forget_others,
    is_noted,
    note_ready,
)
from siqvl.evaluation.letters import letters
from siqvl.evaluation.scoring.scorers import Scorer, scorer
from siqvl.files import atomic_file
from siqvl.recipe import Benchmark, Recipe, Source

BASELINES = "floors.parquet"
ANNOTATED = ("vqav2", "textvqa")  # scorers that count annotators who agree
FIRST = 200  # questions that are looked at before a benchmark is prepared
#: Metadata of the file: what the baselines depend on beside the rows.
_LEARNT = b"siqvl.floors"
_SCHEMA = pa.schema(
    {"id": pa.string(), "player": pa.string(), "answer": pa.string(), "score": pa.float64()}
)


def row_kind(benchmark: Benchmark) -> RowKind:
    """Tells the rows of a benchmark: pairs are compared, everything else is asked and answered."""
    pairs = benchmark.method == "preference" and not benchmark.sampled
    return RowKind.PREFERENCE if pairs else RowKind.EVALUATION


def check_benchmarks(recipe: Recipe) -> None:
    """Judges every benchmark's sources before any work; raises UserError."""
    for benchmark in recipe.evaluation.benchmarks:
        check_benchmark(benchmark)


def check_benchmark(benchmark: Benchmark) -> None:
    """Judges one benchmark's sources before any work; raises UserError."""
    written = benchmark.letters and benchmark.method == "generation"
    if written and not scorer(benchmark.scorer).chooses:
        raise UserError(
            f"benchmark `{benchmark.name}`: with `letters: true` the model writes a letter, "
            f"which scorer `{benchmark.scorer}` cannot read; take `choice`"
        )
    sources.check(benchmark.source, row_kind(benchmark))
    if benchmark.training is not None:
        sources.check(benchmark.training, RowKind.EVALUATION)


def prepare_benchmarks(recipe: Recipe, out: Path, *, keep_ready: bool = False) -> None:
    """Writes `out/<benchmark>/` for every benchmark of the recipe but those that are sampled.

    What lies there of benchmarks that the recipe has no more is removed.

    Args:
        keep_ready: whether those stay that a killed run has prepared there.

    Raises:
        UserError: a source is not as described, or has not what its benchmark is scored by.
    """
    check_benchmarks(recipe)
    ready = [benchmark for benchmark in recipe.evaluation.benchmarks if not benchmark.sampled]
    for benchmark in ready:
        _check_first_questions(benchmark, recipe)
    with alone_with_benchmarks(out):
        for benchmark in ready:
            if not (keep_ready and is_ready(benchmark, recipe, out)):
                _prepare(benchmark, recipe, out)
        forget_others(out, {benchmark.name for benchmark in recipe.evaluation.benchmarks})


def ready_benchmarks(recipe: Recipe, out: Path) -> HeldOut:
    """Prepares what `out` lacks of the recipe's benchmarks, for training rows to be compared with.

    A benchmark that is there as `prepare_benchmarks` would write it now is taken as it is. One that
    cannot be prepared here is named among those that are not compared with.
    """
    folders, unchecked = {}, []
    with alone_with_benchmarks(out):
        for benchmark in recipe.evaluation.benchmarks:
            if benchmark.sampled:
                unchecked.append(SAMPLED_LATER.format(benchmark.name))
                continue
            try:
                check_benchmark(benchmark)
                if not is_ready(benchmark, recipe, out):
                    _check_first_questions(benchmark, recipe)
                    _prepare(benchmark, recipe, out)
                folders[benchmark.name] = out / benchmark.name
            except UserError as error:
                unchecked.append(f"benchmark `{benchmark.name}` cannot be prepared: {error}")
    return HeldOut(folders, unchecked)


def _check_first_questions(benchmark: Benchmark, recipe: Recipe) -> None:
    """Judges the first questions, which tell most mistakes before hours of preparation."""
    if row_kind(benchmark) is RowKind.EVALUATION and _is_demanding(benchmark):
        first = list(islice(_questions(benchmark.source, recipe), FIRST))
        check_offer(benchmark, first, whole=len(first) < FIRST)


def _prepare(benchmark: Benchmark, recipe: Recipe, out: Path) -> None:
    kind, directory = row_kind(benchmark), out / benchmark.name
    key = content_key(benchmark, recipe, kind)  # first: what changes meanwhile is seen next time
    prepare(
        [benchmark.source],
        kind,
        directory,
        data=recipe.data,
        seed=recipe.seed,
        benchmarks=HeldOut(),  # it is one itself
    )
    if kind is RowKind.EVALUATION:
        _write_baselines(benchmark, recipe, directory)
    note_ready(benchmark, out, key)


def is_ready(benchmark: Benchmark, recipe: Recipe, out: Path) -> bool:
    """Tells whether a benchmark lies at `out` whole, and as it would be prepared now."""
    kind = row_kind(benchmark)
    if kind is RowKind.EVALUATION and not (out / benchmark.name / BASELINES).is_file():
        return False
    return is_noted(benchmark, out, content_key(benchmark, recipe, kind))


def _is_demanding(benchmark: Benchmark) -> bool:
    """Whether `check_offer` has anything to look at."""
    return benchmark.letters or benchmark.scorer in ANNOTATED or scorer(benchmark.scorer).chooses


def check_offer(benchmark: Benchmark, rows: Sequence[Row], *, whole: bool = True) -> None:
    """Judges whether evaluation rows have what the benchmark's scorer and prompt need.

    Args:
        whole: these are all of them.

    Raises:
        UserError: no question has options where a letter is to be chosen, or one has none where
            their likelihoods are compared, or too many; or one has a single answer where
            annotators are counted.
    """
    by_letter = "`letters: true`" if benchmark.letters else f"scorer `{benchmark.scorer}`"
    is_chosen = benchmark.letters or scorer(benchmark.scorer).chooses
    if is_chosen and whole and rows and not any(row["choices"] for row in rows):
        raise UserError(
            f"benchmark `{benchmark.name}`: none of its questions has choices, which {by_letter} "
            "needs; choose another scorer, or a source with options"
        )
    for row in rows:
        where = f"benchmark `{benchmark.name}`: question {row['id']}"
        if is_chosen:
            if benchmark.method == "likelihood" and not row["choices"]:
                raise UserError(
                    f"{where} has no choices, which method `likelihood` needs; take method "
                    "`generation` for a set of both kinds"
                )
            try:
                letters(len(row["choices"]))
            except ValueError as error:
                raise UserError(f"{where}: {error}; {by_letter} cannot be used") from None
        if benchmark.scorer in ANNOTATED and len(row["answers"]) == 1:
            raise UserError(
                f"{where} has one answer, but scorer `{benchmark.scorer}` counts annotators who "
                "agree; take `exact_match`"
            )


def _write_baselines(benchmark: Benchmark, recipe: Recipe, directory: Path) -> None:
    """`floors.parquet`: what the guessers answer to each prepared question."""
    dataset, _ = load_prepared(directory, RowKind.EVALUATION)
    columns = ["id", "question", "answers", "choices", "meta"]
    rows: list[Row] = dataset.select_columns(columns).to_list()
    rows = [row | {"type": told(row, *TYPES), "group": told(row, "group")} for row in rows]
    check_offer(benchmark, rows)
    training = _training_questions(benchmark, recipe)
    found = baseline_answers(rows, training, _guesses_scorer(benchmark))
    if figures := scorer(benchmark.scorer).figures:  # which may need groups that rows lack
        guessed = zip(rows, found["majority"], strict=True)
        figures([row | {"score": score} for row, (_, score) in guessed])
    lines = [
        {"id": row["id"], "player": player, "answer": answer, "score": score}
        for player, answered in found.items()
        for row, (answer, score) in zip(rows, answered, strict=True)
    ]
    table = pa.Table.from_pylist(lines, schema=_SCHEMA)
    with atomic_file(directory / BASELINES) as partial:
        pq.write_table(table.replace_schema_metadata({_LEARNT: _depends_on(benchmark)}), partial)


def _guesses_scorer(benchmark: Benchmark) -> Scorer:
    """A guesser says a place, which `choice` reads in any form, and published rules in theirs."""
    own = scorer(benchmark.scorer, official=benchmark.official)
    by_letter = benchmark.letters and benchmark.scorer == "exact_match"
    return scorer("choice") if by_letter or own.chooses else own


def _training_questions(benchmark: Benchmark, recipe: Recipe) -> Iterator[Row] | None:
    """The questions that guessers learn from; None where the recipe names none."""
    if benchmark.training is None:
        return None
    return iter(
        tqdm(
            _questions(benchmark.training, recipe),
            desc=f"{benchmark.name}: floors",
            total=sources.size(benchmark.training, RowKind.EVALUATION, recipe.seed),
            unit=" questions",
            mininterval=1.0,
        )
    )


def _questions(source: Source, recipe: Recipe) -> Iterator[Row]:
    """Questions with an answer; a published row that is not whole teaches a guesser nothing."""
    for row in sources.questions(source, recipe.seed):
        answers, choices = row.get("answers") or [], row.get("choices") or []
        texts = [row.get("question"), *(answers or [None]), *choices]
        if all(isinstance(text, str) and text for text in texts):
            # as preparation composes them, so that they are found again
            yield row | {
                "question": composed(row["question"]),
                "answers": [composed(one) for one in answers],
                "choices": [composed(one) for one in choices],
            }


def _depends_on(benchmark: Benchmark) -> bytes:
    training = benchmark.training.model_dump(mode="json") if benchmark.training else None
    content = {"scorer": _guesses_scorer(benchmark).label, "training": training}
    return json.dumps(content, sort_keys=True).encode()


def read_baselines(data: Path, benchmark: Benchmark) -> pa.Table:
    """Reads what the guessers answered, as `prepare_benchmarks` wrote it.

    Returns:
        One line a question and guesser: `id`, `player` (`siqvl.recipe.Player`), `answer` and
        `score`, a share; the lines of a player are in the benchmark's order. No lines where pairs
        are compared: nobody can guess those.

    Raises:
        UserError: the benchmark was not prepared there, or for another scorer or training source.
    """
    if benchmark.method == "preference":
        return _SCHEMA.empty_table()
    path = data / benchmark.name / BASELINES
    again = "prepare it with data_prep --stage evaluation and the same recipe"
    if not path.is_file():
        raise UserError(f"{data} holds no benchmark `{benchmark.name}`: {again}")
    table = pq.read_table(path)
    if (table.schema.metadata or {}).get(_LEARNT) != _depends_on(benchmark):
        raise UserError(
            f"{path} was made for another scorer or `training` than benchmark `{benchmark.name}` "
            f"has now: {again}"
        )
    return table.replace_schema_metadata(None)
