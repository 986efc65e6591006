"""A question with its published answers -> a row to learn from, or one to be judged by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from siqvl.data.image_tokens import ANY_MARK
from siqvl.data.schema import (
    REASONING_PROMPT,
    Row,
    RowKind,
    evaluation_row,
    left_out_row,
    option_names,
    reasoned_answer,
    sft_row,
    with_options,
)
from siqvl.data.sources.base import require_subsets
from siqvl.data.sources.formats.record import DamagedRecord
from siqvl.data.sources.reading.conversations import clean
from siqvl.data.sources.reading.published import Published, TableAdapter, Way
from siqvl.recipe import Source


def question_row(
    kind: RowKind,
    one: Published,
    *,
    id: str,
    images: list[Any],
    question: str,
    answers: list[str],
    choices: Sequence[str] = (),
    by_letter: bool = False,
    target: str = "",
    steps: str = "",
    **meta: Any,
) -> Row:
    """One question about some pictures.

    Args:
        answers: every one that counts as right.
        choices: if given, they are part of the question. Where they are pictures, they are listed
            with letters, and the letter is learnt.
        by_letter: list them with letters, as published answers are letters.
        target: the one to learn; empty: the most frequent of the answers, the first of equals.
        steps: written reasoning to learn before it; empty: a direct answer.

    Raises:
        DamagedRecord: two of the choices are the same mark of a picture.
    """
    pictured = _are_pictures(choices)
    by_letter = by_letter or pictured
    question = with_options(question, choices, by_letter=by_letter) if question else ""
    about: dict[str, Any] = {"source": one.source, "choices": list(choices), **meta}
    if kind is RowKind.EVALUATION:
        about |= {"benchmark": one.source, "split": one.origin.split}
        return evaluation_row(id, images, question, answers, **about)
    target = target or commonest(answers)
    if pictured and target in choices:
        target = option_names(len(choices))[list(choices).index(target)]
    if steps and target and question:
        question, target = question + REASONING_PROMPT, reasoned_answer(steps, target)
    return sft_row(id, images, question, target, answers=answers, **about)


def commonest(texts: Sequence[str]) -> str:
    """The most frequent of some texts, the first of equals; empty of none."""
    if len(texts) < 2:
        return "".join(texts)
    return Counter(texts).most_common(1)[0][0]


def _are_pictures(choices: Sequence[str]) -> bool:
    """Whether choices mark pictures, so that there may be no text to answer with."""
    marked = [choice for choice in choices if ANY_MARK.search(choice)]
    if not marked:
        return False
    if twice := [choice for choice, count in Counter(marked).items() if count > 1]:
        raise DamagedRecord(
            f"two of its choices are `{twice[0][:80]}`: number the marks, `<image 1>`, to tell "
            "them apart"
        )
    return True


def choices_of(one: Published, column: str = "choices") -> list[str]:
    """All choices in their order; none when one is no text, as an index would then mislead."""
    found = one[column]
    texts = [clean(choice) for choice in found] if isinstance(found, list | tuple) else []
    return texts if all(texts) else []


def chosen(choices: Sequence[str], index: Any) -> list[str]:
    """The choice of an index, as a list of answers; empty when there is no such choice."""
    if isinstance(index, bool) or not isinstance(index, int) or index not in range(len(choices)):
        return []
    return [choices[index]]


class ReasoningAdapter(TableAdapter):
    """A set with published rationales; `subsets` say how its questions are asked.

    `reasoning` asks for written steps and a marked answer (a row without a rationale is a direct
    answer), `direct` for the answer alone. Both, or none named, give every question in both ways.
    Evaluation rows come once, and are asked as the benchmark says.
    """

    forms = ("reasoning", "direct")

    def asked(self, kind: RowKind, one: Published, reasoned: bool) -> Row:
        """What a published row becomes; `reasoned` only where it has steps."""
        raise NotImplementedError

    def has_steps(self, one: Published) -> bool:
        """Whether a rationale is published for this row."""
        raise NotImplementedError

    def check(self, source: Source, kind: RowKind) -> None:
        require_subsets(source, self.forms if kind is RowKind.SFT else ())
        super().check(source, kind)

    def ways(self, source: Source, kind: RowKind) -> list[Way]:
        if kind is not RowKind.SFT:
            return [lambda one: self.asked(kind, one, False)]
        forms = source.subsets or self.forms
        return [partial(self._form, kind, form, len(forms) > 1) for form in forms]

    def table(self, source: Source) -> Source:
        return source.model_copy(update={"subsets": []})

    def _form(self, kind: RowKind, form: str, both: bool, one: Published) -> Row:
        one = replace(one, source=f"{one.source}/{form}")
        reasoned = form == "reasoning" and self.has_steps(one)
        if both and form == "reasoning" and not reasoned:
            reason = "no rationale: only asked for a direct answer"
            return left_out_row(one.id(), reason, source=one.source)
        return self.asked(kind, one, reasoned)
