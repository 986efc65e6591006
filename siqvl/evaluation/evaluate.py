"""Score a checkpoint on the benchmarks of its stage, beside players that see no or another picture.

Answers are kept beside the report until it is there, in `.<name>.answering`: a killed evaluation
goes on where it was. `answer_shard` and `merge_answers` share the work out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from siqvl.checkpoint import CheckpointCard, verify_checkpoint
from siqvl.errors import UserError
from siqvl.evaluation.asking.outputs import VERSION, describe, first_prompt, read_outputs
from siqvl.evaluation.asking.question_plan import plan
from siqvl.evaluation.benchmarks.benchmark_rows import Questions, load_questions
from siqvl.evaluation.benchmarks.prepare_benchmarks import read_baselines
from siqvl.evaluation.evaluation_page import write_report
from siqvl.evaluation.score_answers import predictions_of, score_of
from siqvl.evaluation.scoring.predictions import PREDICTIONS
from siqvl.evaluation.scoring.scores import Scores
from siqvl.evaluation.shown_answers import answers_of_the_model
from siqvl.files import atomic_folder
from siqvl.locks import shared
from siqvl.recipe import Benchmark, Control, Recipe

REPORT = "report.html"
#: Keys of a benchmark that change no answer of the model.
NOT_ASKED = {
    *("source", "training", "stages", "sampled", "held_out"),
    *("scorer", "official", "answer_marker"),
}


def evaluate(recipe: Recipe, *, checkpoint: Path, data: Path, out: Path) -> Scores:
    """Writes an EvalReport to `out`: `scores.json`, `predictions.parquet`, `report.html`.

    Raises:
        UserError: no checkpoint or a damaged one, no benchmark of this stage in the recipe, or one
            that is not prepared.
    """
    work = out.with_name(f".{out.name}.answering")
    work.parent.mkdir(parents=True, exist_ok=True)
    with shared(work.with_name(f"{work.name}.lock")) as is_last:
        answer_shard(recipe, checkpoint=checkpoint, data=data, out=work)
        scores = merge_answers([work], recipe, checkpoint=checkpoint, data=data, out=out)
        if is_last():
            shutil.rmtree(work, ignore_errors=True)
    return scores


def answer_shard(
    recipe: Recipe, *, checkpoint: Path, data: Path, out: Path, shard: int = 0, shards: int = 1
) -> None:
    """Answers every `shards`-th portion of each benchmark, from number `shard` on, into `out`.

    Answers that are there already, of the same model to the same questions, are kept.

    Raises:
        UserError: as `evaluate`.
    """
    from siqvl.data.features.build_features import features_folder
    from siqvl.device import answering_precision
    from siqvl.evaluation.asking.encoded_pictures import EncodedPictures
    from siqvl.evaluation.asking.predict import Share, first_prompt_text, method_of
    from siqvl.generation.completions import load_to_answer

    card, asked = _asked(recipe, checkpoint, data)
    precision = answering_precision(recipe, card.stage)
    model, processor = load_to_answer(checkpoint, recipe.model.attention, precision)
    pictures = EncodedPictures(model, processor, recipe.features_batch_size)
    work = []
    for questions, _ in asked:
        batch_size = recipe.evaluation.batch_size
        method = method_of(questions.benchmark, model, processor, batch_size)
        planned = plan(questions, method, batch_size)
        key = _key(card, questions, recipe)
        folder = _folder(out, questions.benchmark, key)
        describe(folder, key, first_prompt_text(planned, processor))
        work.append((questions, method, Share(planned, folder, shard, shards)))
    total = sum(share.answers() for _, _, share in work)
    left = sum(share.answers(left=True) for _, _, share in work)
    with tqdm(total=total, initial=total - left, unit=" answers", mininterval=1.0) as bar:
        for questions, method, share in work:
            if recipe.evaluation.cached_features and share.answers(left=True):
                pictures.keep(features_folder(recipe), questions.dataset)
            share.predict(questions, method, pictures, bar)


def merge_answers(
    answered: Sequence[Path], recipe: Recipe, *, checkpoint: Path, data: Path, out: Path
) -> Scores:
    """Writes the EvalReport of what `answer_shard` left in some folders, as `evaluate` would.

    Raises:
        UserError: answers are missing, or are not this checkpoint's to these questions.
    """
    card, asked = _asked(recipe, checkpoint, data)
    tables: list[pa.Table] = []
    scores = []
    for questions, baselines in asked:
        key = _key(card, questions, recipe)
        folders = [_folder(one, questions.benchmark, key) for one in answered]
        prompts = [first_prompt(folder, key) for folder in folders]
        table = predictions_of(questions, read_outputs(folders), baselines)
        scores.append(score_of(questions, table, prompts[0], recipe))
        tables.append(table)
    report = Scores(
        stage=card.stage,
        random_tower=card.control is Control.RANDOM_TOWER,
        likelihood_control=card.control is Control.LIKELIHOOD,
        checkpoint_hash=card.hash,
        scores=scores,
    )
    with atomic_folder(out) as partial:
        report.write(partial)
        predictions = pa.concat_tables(tables)
        pq.write_table(predictions, partial / PREDICTIONS)
        count = max(len(asked), recipe.evaluation.report_pictures)
        write_report(report, answers_of_the_model(predictions), data, count, partial / REPORT)
    return report


def _asked(
    recipe: Recipe, checkpoint: Path, data: Path
) -> tuple[CheckpointCard, list[tuple[Questions, pa.Table]]]:
    """The checkpoint's card, its benchmarks, and what guessers answered to them.

    All is judged before the model is loaded.
    """
    card = verify_checkpoint(checkpoint)
    benchmarks = [b for b in recipe.evaluation.benchmarks if card.stage in b.stages]
    if not benchmarks:
        raise UserError(f"recipe `{recipe.name}` scores no benchmark after stage `{card.stage}`")
    return card, [(load_questions(one, data), read_baselines(data, one)) for one in benchmarks]


def _key(card: CheckpointCard, questions: Questions, recipe: Recipe) -> str:
    """Digest of all that decides what the model answers."""
    settings = questions.benchmark.model_dump(mode="json", exclude=NOT_ASKED)
    about = {
        "version": VERSION,
        "checkpoint": card.hash,
        "benchmark": settings,
        "data": questions.manifest.fingerprint,
        "batch_size": recipe.evaluation.batch_size,
        "pictures": recipe.features_batch_size,
        "attention": recipe.model.attention,
        "precision": recipe.evaluation.precision,
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _folder(out: Path, benchmark: Benchmark, key: str) -> Path:
    return out / f"{benchmark.name}-{key[:16]}"
