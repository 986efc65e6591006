"""The models of `lmms-eval --model siqvl`, version 0.7.3; only lmms-eval imports this.

lmms-eval has two protocols. A chat model is given messages, whose pictures have their places; a
simple one a text and pictures, and `output_type: multiple_choice` comes to no other.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NoReturn

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from tqdm import tqdm

from siqvl.data.schema import Row
from siqvl.errors import UserError
from siqvl.harness.answering_model import AnsweringModel, Question, Written
from siqvl.harness.asked_rows import asked_row, conversation_row
from siqvl.harness.decoding import Decoding, read_decoding
from siqvl.harness.model_args import read_model_args

logger = logging.getLogger(__name__)


class _SiQVL(lmms):
    """What both have in common."""

    def __init__(self, **model_args: Any) -> None:
        super().__init__()
        self._args = read_model_args(model_args)
        self._answering: AnsweringModel | None = AnsweringModel.load(self._args)
        self._decodings: dict[str, Decoding] = {}

    @property
    def device(self) -> torch.device:
        """Where the model computes; lmms-eval asks where several processes share the questions."""
        return self._loaded.device

    @property
    def _loaded(self) -> AnsweringModel:
        if self._answering is None:
            raise UserError("lmms-eval has told this model to free its memory; load another one")
        return self._answering

    def clean(self) -> None:
        """Frees the model's memory: lmms-eval has no more questions."""
        self._answering = None
        super().clean()

    @abstractmethod
    def _question(self, request: Instance) -> Question:
        """What one request of `generate_until` asks."""

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Answers requests, in their order."""
        questions = [self._question(request) for request in requests]
        with tqdm(total=len(questions), desc="SiQ-VL", disable=self.rank != 0) as bar:
            written = self._loaded.write(questions, bar.update)
        _tell_cut(questions, written)
        return [one.text for one in written]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Refuses tasks that ask in rounds."""
        raise UserError(
            f"task {requests[0].task_name} asks in several rounds (generate_until_multi_round), "
            "which SiQ-VL does not answer; leave it out of --tasks"
        )

    def _asked(
        self, name: str, row: Callable[[], Row], context: str, kwargs: dict[str, Any], task: str
    ) -> Question:
        key = f"{task} {kwargs}"  # read once a task, to warn once
        if key not in self._decodings:
            most = self._args.max_new_tokens
            self._decodings[key] = read_decoding(kwargs, task=task, max_new_tokens=most)
        return Question(name, row, len(context), self._decodings[key])


class SiQVLChat(_SiQVL):
    """Answers messages."""

    is_simple = False

    def _question(self, request: Instance) -> Question:
        context, doc_to_messages, kwargs, doc_id, task, split = request.args
        name = f"question {doc_id} of task {task}"

        def row() -> Row:
            return conversation_row(name, doc_to_messages(self.task_dict[task][split][doc_id]))

        return self._asked(name, row, context, kwargs, task)

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Refuses what lmms-eval asks no chat model."""
        raise UserError(
            f"task {requests[0].task_name} compares the options' likelihoods, which lmms-eval asks "
            "of simple models alone; add --force_simple"
        )


class SiQVLSimple(_SiQVL):
    """Answers texts with pictures, and judges options."""

    is_simple = True

    def _question(self, request: Instance) -> Question:
        context, kwargs, doc_to_visual, doc_id, task, split = request.args
        name = f"question {doc_id} of task {task}"

        def row() -> Row:
            return self._row(name, context, doc_to_visual, self.task_dict[task][split][doc_id])

        return self._asked(name, row, context, kwargs, task)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Gives each option's negative log-probability, in nats, and whether it would be written.

        `lmms.loglikelihood` is documented to give pairs of a log-probability and that, but version
        0.7.3 takes the option with the *least* value for the model's choice (`api/task.py`,
        `np.argmin(lls)`), as its own models give losses; and it makes a text of every pair that
        comes without a `GenerationResult` around it (`unwrap_generation_output`).
        """
        found: list[GenerationResult] = []
        with tqdm(total=len(requests), desc="SiQ-VL", disable=self.rank != 0) as bar:
            for (doc_id, task, split, context), same in groupby(requests, _of_one_question):
                options = list(same)
                name = f"question {doc_id} of task {task}"
                doc = self.task_dict[task][split][doc_id]
                row = self._row(name, context, options[0].args[2], doc)
                judged = self._loaded.likely(row, [_continuation(one, doc) for one in options])
                found += [GenerationResult((-one.log_probability, one.greedy)) for one in judged]
                bar.update(len(options))
        return found

    def _row(self, name: str, context: str, doc_to_visual: Callable[[Any], Any], doc: Any) -> Row:
        return asked_row(name, context, doc_to_visual(doc) or [])


def _of_one_question(request: Instance) -> tuple[Any, str, str, str]:
    """What requests have in common that are options of one question."""
    context, _, _, doc_id, task, split = request.args
    return doc_id, task, split, context


def _continuation(request: Instance, doc: Any) -> str:
    """An option; a task of the one right text names it by a function."""
    target = request.args[1]
    return target(doc) if callable(target) else target


def _tell_cut(questions: Sequence[Question], written: Sequence[Written]) -> None:
    """Warns of answers that `until` has cut.

    lmms-eval itself adds a blank line to every task that names none.
    """
    cut = sum(one.text != one.whole for one in written)
    if cut:
        stops = sorted({stop for question in questions for stop in question.decoding.until})
        logger.warning(
            "%d of %d answers were cut at one of until: %s; --gen_kwargs until= keeps them whole",
            *(cut, len(written), stops),
        )
