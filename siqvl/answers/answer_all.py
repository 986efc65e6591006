"""Answers to every row of a data set, portion by portion, in a way that can go on later.

Portions follow from the rows and the settings alone. A run that goes on takes whole ones, so that
an answer is computed in the same company whenever it is computed, and comes out equal.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from siqvl.answers.picture_tokens import PictureTokens
from siqvl.answers.portion_files import Line, PortionFiles
from siqvl.answers.question_source import Questions
from siqvl.answers.read_ahead import Portion, Reader, ReadyRow, ahead
from siqvl.answers.write_answers import check_ending, write_answers
from siqvl.checkpoint import verify_checkpoint
from siqvl.device import Precision, best_device
from siqvl.errors import UserError, one_line
from siqvl.generation.choose import Choose, likeliest
from siqvl.generation.completions import load_to_answer, texts_of
from siqvl.generation.loop import Written, end_ids, write
from siqvl.generation.mixed import Mixed
from siqvl.generation.request import Sampling
from siqvl.serving.settings import ServingSettings

if TYPE_CHECKING:
    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor

#: Batches in a portion: while one of its answers is written, the next row waits for the place. What
#: a killed run loses is a portion at most.
BATCHES = 4
REASON = 60  # characters by which errors are counted


@dataclass(frozen=True)
class How:
    """How rows are answered.

    Attributes:
        batch_size: answers in the making at once.
        precision: of weights and arithmetic.
    """

    max_new_tokens: int
    batch_size: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    precision: Precision = "fp32"

    def sampling(self, row: int) -> Sampling:
        """Returns how a row is answered; each has random numbers of its own."""
        return Sampling(
            self.max_new_tokens, self.temperature, self.top_p, seed=self.seed, number=row
        )


@dataclass
class Done:
    """What a run has done.

    Attributes:
        rows: of the table that was written.
        kept: of these, those whose answers were there already.
        changed: rows that are others than when they were answered.
        tokens, seconds: written in this run, and how long it wrote.
        errors: reason -> rows.
        shown: the first rows, each with its number and small copies of its pictures.
        wrong: of other rows with errors, the first ones.
    """

    rows: int = 0
    kept: int = 0
    changed: int = 0
    tokens: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    shown: list[tuple[int, list[str], Line]] = field(default_factory=list)
    wrong: list[tuple[int, Line]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / max(self.seconds, 1e-9)


def answer_all(
    questions: Questions,
    checkpoint: Path,
    out: Path,
    how: How,
    *,
    shown: int = 0,
    fresh: bool = False,
    bar: tqdm | None = None,
) -> Done:
    """Writes the answers of a checkpoint to a table; what an earlier run left is gone on from.

    Rows that cannot be answered are in the table with an `error`, and stop nothing.

    Args:
        out: its ending says how it is written, see `siqvl.answers.write_answers`.
        shown: rows to give back for a page.
        fresh: throws away what an earlier run left.
        bar: is moved on.

    Raises:
        UserError: the rows cannot be read, the checkpoint is none, an earlier run had other
            settings, the table cannot be written, or the model fails on all rows.
    """
    check_ending(out)
    card = verify_checkpoint(checkpoint)
    limits = ServingSettings.of(card.recipe)
    how.sampling(0)  # which refuses values out of their range
    files, bar = PortionFiles(out), bar if bar is not None else tqdm(disable=True)
    settings = {"checkpoint": card.hash, **_computed_by(), **asdict(how), "asked": questions.said}
    with files.opened(settings, fresh=fresh):
        model, processor = load_to_answer(checkpoint, limits.attention, how.precision)
        longest = model.config.text_config.max_position_embeddings - how.max_new_tokens
        most = BATCHES * how.batch_size
        reader = Reader(questions, processor, limits.limits, longest, most, files.digest, shown)
        run = _Run(model, processor, how, bar)
        portions = 0
        bar.reset(questions.size())
        with _disk(files.folder):
            for portion in ahead(reader.portions()):
                _one(portion, files, run, shown)
                portions += 1
            files.forget_from(portions)
        if not run.done.rows:
            raise UserError("there are no rows to answer")
        write_answers(out, map(files.read, range(portions)))
    return run.done


def _computed_by() -> dict[str, str]:
    """What else decides the last bit of an answer."""
    import torch
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return {"libraries": versions, "device": str(best_device())}


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"answers cannot be kept in {folder} ({one_line(error)})") from None


def _one(portion: Portion, files: PortionFiles, run: _Run, shown: int) -> None:
    """Answers a portion, or reads its answers where they are there."""
    known = files.digest(portion.number)
    if known == portion.digest:
        lines = files.read(portion.number)
        run.done.kept += len(lines)
        run.bar.update(len(lines))
    else:
        before, now = (known or "").split(), portion.digest.split()
        run.done.changed += sum(a != b for a, b in zip(before, now, strict=False))
        lines = run.answer(portion)
        files.write(portion.number, portion.digest, lines)
    for at, line in enumerate(lines, portion.start):
        run.done.rows += 1
        if line["error"]:
            run.done.errors[line["error"].partition(":")[0][:REASON]] += 1
        if at in portion.shown:
            run.done.shown.append((at, portion.shown[at], line))
        elif line["error"] and len(run.done.wrong) < shown:
            run.done.wrong.append((at, line))


class _Run:
    """A loaded model that answers portions."""

    def __init__(
        self,
        model: SiQVLForConditionalGeneration,
        processor: SiQVLProcessor,
        how: How,
        bar: tqdm,
    ) -> None:
        self.done = Done()
        self.bar = bar
        self._model, self._processor, self._how = model, processor, how
        self._pictures = PictureTokens(model)
        self._begun = time.monotonic()
        self._ends = end_ids(model, processor.tokenizer.eos_token_id)

    def answer(self, portion: Portion) -> list[Line]:
        """Answers the rows of a portion; a row on which the model fails has an error.

        Raises:
            UserError: it fails on all of them.
        """
        self._pictures.begin(portion.pixels)
        asked = [at for at, row in enumerate(portion.rows) if row.prompt is not None]
        self.bar.update(len(portion.rows) - len(asked))
        self._begun = time.monotonic()
        written, failed = self._answered(portion, sorted(asked, key=_length(portion.rows)))
        self.done.seconds += time.monotonic() - self._begun
        if failed and len(failed) == len(asked) > 1:
            raise UserError(f"the model fails on every row ({next(iter(failed.values()))})")
        found = texts_of(list(written.values()), self._processor) if written else []
        texts = {at: one.text for at, one in zip(written, found, strict=True)}
        return [
            _line(row, written.get(at), texts.get(at), failed.get(at, ""))
            for at, row in enumerate(portion.rows)
        ]

    def _answered(
        self, portion: Portion, order: list[int]
    ) -> tuple[dict[int, Written], dict[int, str]]:
        """What was written for each row, and why nothing was for others."""
        found: dict[int, Written] = {}
        failed: dict[int, str] = {}
        try:
            self._write(portion, order, found)
        except RuntimeError:  # too little memory for all of them, or a row that breaks the model
            for at in [one for one in order if one not in found]:
                try:
                    self._write(portion, [at], found)
                except RuntimeError as error:
                    failed[at] = f"the model failed: {one_line(error)[:300]}"
                    self.bar.update(1)
        return found, failed

    def _write(self, portion: Portion, order: Sequence[int], found: dict[int, Written]) -> None:
        prompts = [prompt for at in order if (prompt := portion.rows[at].prompt) is not None]
        for number, one in write(
            self._model,
            prompts,
            self._pictures,
            places=self._how.batch_size,
            max_new_tokens=self._how.max_new_tokens,
            end_ids=self._ends,
            choose=self._choose([portion.start + at for at in order]),
        ):
            found[order[number]] = one
            self.done.tokens += len(one.ids)
            seconds = self.done.seconds + time.monotonic() - self._begun
            rate = f"{self.done.tokens / max(seconds, 1e-9):,.0f} tokens/s"
            self.bar.set_postfix_str(rate, refresh=False)
            self.bar.update(1)

    def _choose(self, rows: Sequence[int]) -> Choose:
        if not self._how.temperature:
            return likeliest
        chosen = Mixed()
        for number, row in enumerate(rows):
            chosen.add(number, self._how.sampling(row))
        return chosen


def _length(rows: Sequence[ReadyRow]) -> Any:
    """Rows of like length are read together, which saves padding."""

    def key(at: int) -> tuple[int, int]:
        prompt = rows[at].prompt
        return (len(prompt.ids) if prompt else 0, at)

    return key


def _line(row: ReadyRow, written: Written | None, text: str | None, failed: str) -> Line:
    return {
        "id": row.id,
        "pictures": row.pictures,
        "question": row.question,
        "answer": text,
        "finished": None if written is None else written.ended,
        "tokens": None if written is None else len(written.ids),
        "expected": row.expected,
        "error": failed or row.error or None,
    }
