"""The fields of a row that hold what is said -> a supervised row, or a pair.

Known without mapping are the columns of
- conversations (LLaVA, FineVision, ShareGPT, the hub's chat sets): `conversations` or `messages`;
- TRL: `prompt` with `completion`, or with `chosen` and `rejected`, which may hold the prompt;
- LLaMA-Factory: `instruction`, `input`, `output`, `history`, `system`; `conversations` with
  `chosen` and `rejected`;
- ms-swift: `query`, `response`, `history`, `system`, `rejected_response`; `messages` with
  `rejected_response`.
Whatever is not understood is a `DamagedRecord` that says what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from siqvl.composed_text import composed
from siqvl.data.schema import Row, RowKind, preference_row, sft_row
from siqvl.data.sources.formats.table_file import DamagedRecord
from siqvl.data.sources.reading.conversations import messages_of, split_turns, untagged
from siqvl.data.sources.reading.picture_fields import picture
from siqvl.data.sources.reading.published import Published
from siqvl.data.sources.reading.turns import Turn, kind_of, read_conversation, read_turns, said
from siqvl.data.sources.values.cells import is_missing

#: Fields that are nothing but conversations.
WHOLE = ("conversations", "messages")
#: Fields that are asked, each with the one that answers it.
ANSWERED = {"prompt": "completion", "instruction": "output", "query": "response"}
REJECTED = ("rejected", "rejected_response")
MESSAGE_FIELDS = (
    *WHOLE,
    *("prompt", "completion", "chosen", "rejected"),
    *("instruction", "input", "output", "history", "system"),
    *("query", "response", "rejected_response"),
)
#: What messages can stand in for: a question, its answer, a pair's sides.
ASKING = (*WHOLE, *ANSWERED)
ANSWERING = (*WHOLE, *ANSWERED.values())

Turns = list[Turn]
Found = TypeVar("Found")


def message_row(
    kind: RowKind,
    one: Published,
    *,
    id: str,
    images: list[Any],
    question: str,
    choices: Sequence[str] = (),
) -> Row:
    """What a row says, as a supervised row or a preference row.

    Args:
        one: its record holds MESSAGE_FIELDS by these names.
        images: those of the row's picture columns.
        question: text of a field that is asked as it stands; empty where there is none.
        choices: of the question, which already lists them.

    Raises:
        DamagedRecord: a field is not understood; its text says which, and why.
    """
    asked = [Turn("user", question)] if question else []
    about: dict[str, Any] = {"source": one.source, "choices": list(choices)}
    if kind is RowKind.PREFERENCE:
        prompt, chosen, rejected = _pair(one, asked)
        if any(turn.pictures for turn in [*chosen, *rejected]):
            raise DamagedRecord("an answer of a pair holds pictures: they belong into its prompt")
        prompt = _with_system(one, prompt)
        sides = messages_of(chosen), messages_of(rejected)
        return preference_row(
            id, with_inner(one, images, prompt), messages_of(prompt), *sides, **about
        )
    prompt, completion = _answered(one, asked)
    prompt = _with_system(one, prompt)
    images = with_inner(one, images, [*prompt, *completion])
    turns = untagged(messages_of([*prompt, *completion]))
    return sft_row(id, images, turns[: len(prompt)], turns[len(prompt) :], **about)


def require_agreement(one: Published, answers: set[str]) -> None:
    """Raise DamagedRecord where a row with a question and its answers also has messages.

    Those that end with one of these answers are no others, and what answers nothing says nothing.
    """
    for name in (*WHOLE, *ANSWERED):
        whole = name in WHOLE
        if not _is_filled(one, name) or not (whole or _is_filled(one, ANSWERED[name])):
            continue
        try:
            said_last = (
                split_turns(one[name], name, is_asked=True)[1]
                if whole
                else _spoken(one, ANSWERED[name], "assistant")
            )
        except DamagedRecord:
            continue
        if said_last and composed(said_last[-1].text) not in answers:
            raise DamagedRecord(
                f"`question` with its answer, and `{name}`, are filled, and differ: map the one "
                "that is meant in `columns`"
            )


def with_inner(one: Published, images: list[Any], turns: Sequence[Turn]) -> list[Any]:
    """A row's pictures: those of its picture columns, else those that typed parts hold.

    Raises:
        DamagedRecord: there are some in both places, and not as many.
    """
    inner = [picture(value, one.find) for turn in turns for value in turn.pictures]
    if images and inner and len(images) != len(inner):
        raise DamagedRecord(
            f"{len(inner)} pictures in its turns, but {len(images)} in its picture column"
        )
    return images or inner


def _answered(one: Published, asked: Turns) -> tuple[Turns, Turns]:
    """Prompt and completion, from the fields that have both."""
    found: dict[str, Callable[[], tuple[Turns, Turns]]] = {
        name: partial(split_turns, one[name], name, is_asked=bool(asked))
        for name in WHOLE
        if _is_filled(one, name)
    }
    for asks, answers in ANSWERED.items():
        if _is_filled(one, asks) and _is_filled(one, answers):
            found[asks] = partial(_asked_and_answered, one, asks, answers)
    if found:
        prompt, completion = _the_one(found, one)
        is_meant = "question" in one.origin.columns or not prompt
        return (asked if asked and is_meant else prompt), completion
    if asked:
        answered = {
            name: partial(_spoken, one, name, "assistant")
            for name in ANSWERED.values()
            if _is_filled(one, name)
        }
        return asked, _the_one(answered, one) if answered else []
    for pair in ANSWERED.items():
        for name, other in (pair, pair[::-1]):
            if _is_filled(one, name):
                raise DamagedRecord(f"`{name}` is filled, but `{other}` is not")
    return [], []


def _asked_and_answered(one: Published, asks: str, answers: str) -> tuple[Turns, Turns]:
    return _asks(one, asks), _spoken(one, answers, "assistant")


def _pair(one: Published, asked: Turns) -> tuple[Turns, Turns, Turns]:
    """Prompt, chosen and rejected completion."""
    sides = {
        name: partial(_spoken, one, name, "assistant") for name in REJECTED if _is_filled(one, name)
    }
    rejected = _the_one(sides, one) if sides else []
    if "chosen" not in one.record or _is_filled(one, "rejected_response"):
        for name in WHOLE:
            if _is_filled(one, name) and read_conversation(one[name], name)[-1].role != "assistant":
                raise DamagedRecord(f"{name} does not end with the answer that is to be chosen")
        return *_answered(one, asked), rejected
    chosen = _spoken(one, "chosen", "assistant")
    found: dict[str, Callable[[], Turns]] = {"question": lambda: asked} if asked else {}
    found |= {name: partial(_asks, one, name) for name in ANSWERED if _is_filled(one, name)}
    for name in WHOLE:
        if _is_filled(one, name):
            found[name] = partial(_asked_before, one, name, (chosen, rejected))
    shared = _shared(one, chosen, rejected)
    prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    if found and (not prompt or any(_is_mapped(one, name) for name in found)):
        prompt = _the_one(found, one)
    return prompt, chosen, rejected


def _shared(one: Published, chosen: Turns, rejected: Turns) -> int:
    """How many turns both sides begin with, which are their prompt, as in TRL's extract_prompt.

    A side that is text holds none, and where the prompt is a conversation itself, neither side
    holds it again. At least the last turn of the shorter side is its answer.
    """
    if isinstance(one["prompt"], list | tuple | dict):
        return 0
    count = 0
    for count, (left, right) in enumerate(zip(chosen, rejected, strict=False)):  # noqa: B007
        if left != right:
            break
    return count


def _asked_before(one: Published, name: str, sides: tuple[Turns, Turns]) -> Turns:
    """A conversation that the sides of a pair go on with; one of them may stand in it already."""
    turns = read_conversation(one[name], name)
    if turns[-1].role != "assistant":
        return turns
    if turns[-1:] not in [side[-1:] for side in sides]:
        raise DamagedRecord(f"{name} ends with an answer that is neither `chosen` nor `rejected`")
    return turns[:-1]


def _asks(one: Published, name: str) -> Turns:
    """What is asked by a field, with what was said before."""
    if name == "prompt":
        return _spoken(one, name, "user")
    texts = [said(one[name], name)]
    if name == "instruction":
        texts.append(said(one["input"], "input"))
    text = "\n".join(filter(None, texts))
    return [*_history(one), *([Turn("user", text)] if text else [])]


def _spoken(one: Published, name: str, role: str) -> Turns:
    """A field that is a conversation, or what one side says at once.

    Text is text, even where it looks like a list.
    """
    value = one[name]
    if isinstance(value, list | tuple | dict):
        return read_turns(value, name)
    text = said(value, name)
    return [Turn(role, text)] if text else []


def _history(one: Published) -> Turns:
    """Earlier rounds: pairs of what was asked and answered, or turns."""
    rounds = one["history"]
    if rounds == [] or not _is_filled(one, "history"):
        return []
    if not isinstance(rounds, list | tuple):
        raise DamagedRecord(f"history is {kind_of(rounds)}, expected a list of rounds")
    if all(isinstance(each, dict) for each in rounds):
        return read_turns(rounds, "history")
    turns = []
    for number, pair in enumerate(rounds, start=1):
        where = f"round {number} of history"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DamagedRecord(f"{where} is {kind_of(pair)}, expected what was asked and answered")
        texts = [said(text, where) for text in pair]
        if not all(texts):
            raise DamagedRecord(f"{where} is empty: nothing is asked, or nothing answered")
        turns += [Turn("user", texts[0]), Turn("assistant", texts[1])]
    return turns


def _with_system(one: Published, prompt: Turns) -> Turns:
    """The prompt below the system message of a column, where it has none of its own."""
    text = said(one["system"], "system")
    if not text or not prompt:
        return prompt
    system = Turn("system", text)
    if prompt[0].role != "system":
        return [system, *prompt]
    if prompt[0] != system:
        raise DamagedRecord("its `system` column says something else than its system turn")
    return prompt


def _the_one(found: Mapping[str, Callable[[], Found]], one: Published) -> Found:
    """What several fields say: the mapped ones if some are, and all of them the same.

    Raises:
        DamagedRecord: they differ.
    """
    names = [name for name in found if _is_mapped(one, name)] or [*found]
    first, *others = (found[name]() for name in names)
    if any(other != first for other in others):
        raise DamagedRecord(
            f"{' and '.join(f'`{name}`' for name in names)} are filled, and differ: map the one "
            "that is meant in `columns`"
        )
    return first


def _is_mapped(one: Published, name: str) -> bool:
    return bool({name, ANSWERED.get(name)} & {*one.origin.columns})


def _is_filled(one: Published, name: str) -> bool:
    """Whether a field says anything."""
    return not is_missing(one[name])
