"""Conversations of random layouts, mutated: read as plain Python reads them, or refused.

The reader here shares nothing with ours: it knows the layout that a row was written in, and takes
anything unexpected for a bad row.
"""

import copy
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from siqvl.data import sources
from siqvl.data.encode import encode_preference, encode_sft
from siqvl.data.preparation.checks import check_row
from siqvl.data.schema import Row, RowKind
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture

Turns = list[tuple[str, str]]
COLORS = ("red", "blue", "green", "gray")
PICTURES = {f"{color}.png": picture(color) for color in COLORS}
USERS = ("user", "human", "USER")
ASSISTANTS = ("assistant", "gpt", "chatgpt", "bot", "model")


class Bad(Exception):
    """A row that is not to be learnt from."""


# -- what is written -------------------------------------------------------------------------


def made_turns(rng: random.Random, pictures: int) -> Turns:
    """A conversation that speaks of so many pictures, or of none in particular."""
    rounds = rng.randint(1, 3)
    turns: Turns = []
    for number in range(rounds):
        turns += [("user", f"What is {number}?"), ("assistant", rng.choice(["a cat", "7", "no"]))]
    if rng.random() < 0.3:
        turns.insert(0, ("system", rng.choice(["Be brief.", ""])))
    asked = [place for place, turn in enumerate(turns) if turn[0] == "user"]
    if pictures and rng.random() < 0.7:
        style = rng.choice(["<image>", "<image>", "<image {}>", "<image_{}>"])
        order = rng.sample(range(1, pictures + 1), pictures)
        for number in order:
            place = rng.choice(asked[: 1 + (rng.random() < 0.3)])
            mark, words = style.format(number), turns[place][1]
            turns[place] = (
                "user",
                rng.choice(
                    [
                        f"{mark}\n{words}",
                        f"{words} {mark}",
                        f"See {mark}: {words}",
                        f"{mark}{words}",
                    ]
                ),
            )
    return turns


def listed(rng: random.Random, turns: Turns) -> Any:
    """Turns as a list of objects, or as one object of lists."""
    who, what = rng.choice([("role", "content"), ("from", "value")])
    names = {"user": rng.choice(USERS), "assistant": rng.choice(ASSISTANTS), "system": "system"}
    found = [{who: names[role], what: words} for role, words in turns]
    if rng.random() < 0.2:
        return {key: [turn[key] for turn in found] for key in (who, what)}
    return found


def typed(rng: random.Random, turns: Turns) -> Any:
    """Turns whose texts and marks are typed parts."""
    found = []
    for role, words in turns:
        parts: list[dict[str, Any]] = []
        for number, one in enumerate(words.split("<image>")):
            parts += [{"type": "image"}] if number else []
            parts += [{"type": "text", "text": one}] if one else []
        plain = rng.random() < 0.3 and role != "user"
        found.append({"role": role, "content": words if plain else parts})
    return found


def whole(rng: random.Random, turns: Turns) -> dict[str, Any]:
    column = rng.choice(["messages", "conversations"])
    value = rng.choice([listed, listed, typed])(rng, turns)
    return {column: json.dumps(value) if rng.random() < 0.1 else value}


def pairs(rng: random.Random, turns: Turns) -> dict[str, Any]:
    spoken = [turn for turn in turns if turn[0] != "system"]
    found = [
        {"user": asked[1], "assistant": answer[1]}
        for asked, answer in zip(spoken[::2], spoken[1::2], strict=True)
    ]
    return {"conversations": found}


def prompted(rng: random.Random, turns: Turns) -> dict[str, Any]:
    write = rng.choice([listed, typed])
    return {"prompt": write(rng, turns[:-1]), "completion": write(rng, turns[-1:])}


def flat(names: tuple[str, str]) -> Callable[[random.Random, Turns], dict[str, Any]]:
    """Alpaca's columns, or ms-swift's."""

    def write(rng: random.Random, turns: Turns) -> dict[str, Any]:
        system = turns[0][1] if turns[0][0] == "system" else None
        spoken = [turn[1] for turn in turns if turn[0] != "system"]
        *earlier, asked, answer = spoken
        history = [list(one) for one in zip(earlier[::2], earlier[1::2], strict=True)]
        return {names[0]: asked, names[1]: answer, "history": history, "system": system}

    return write


LAYOUTS: dict[str, Callable[[random.Random, Turns], dict[str, Any]]] = {
    "whole": whole,
    "pairs": pairs,
    "prompted": prompted,
    "alpaca": flat(("instruction", "output")),
    "swift": flat(("query", "response")),
}


# -- what plain Python reads -----------------------------------------------------------------


def words_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Bad("no text")
    return str(value).strip()


def content_of(role: str, value: Any) -> str:
    if not isinstance(value, list):
        return words_of(value)
    text = ""
    for part in value:
        if not isinstance(part, dict):
            raise Bad("no part")
        # Qwen-VL's parts are named by what they hold
        kind = "text" if part.get("type") is None and "text" in part else part["type"]
        if kind == "text" and part["text"] is not None:
            text += part["text"] if isinstance(part["text"], str) else words_of(part["text"])
        elif kind == "image" and role == "user" and not part.get("text"):
            text += "<image>"
        else:
            raise Bad("unknown part")
    return text.strip()


def turns_of(value: Any) -> Turns:
    if isinstance(value, dict) and any(isinstance(one, list) for one in value.values()):
        columns = {key: one for key, one in value.items() if isinstance(one, list)}
        if {*columns} in ({"role", "content"}, {"from", "value"}, {"user", "assistant"}):
            if len({len(one) for one in columns.values()}) > 1:
                raise Bad("different lengths")
            rows = zip(*columns.values(), strict=True)
            value = [dict(zip(columns, row, strict=True)) for row in rows]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise Bad("no turns")
    found: Turns = []
    for turn in value:
        who = turn.get("role", turn.get("from"))
        if who is None and ("user" in turn or "assistant" in turn):
            said = [("user", turn.get("user")), ("assistant", turn.get("assistant"))]
        else:
            name = who.strip().lower()
            (role,) = [
                ours
                for ours, names in (
                    ("user", USERS),
                    ("assistant", ASSISTANTS),
                    ("system", ("system",)),
                )
                if name in map(str.lower, names)
            ]
            said = [(role, turn.get("content", turn.get("value")))]
        for role, content in said:
            text = content_of(role, content)
            if text:
                found.append((role, text))
            elif role != "system":
                raise Bad("says nothing")
    return found


def spoken(role: str, value: Any) -> Turns:
    if isinstance(value, list | dict):
        return turns_of(value)
    return [(role, words_of(value))] if words_of(value) else []


def up_to_the_last_answer(turns: Turns) -> Turns:
    while turns and turns[-1][0] != "assistant":
        turns = turns[:-1]
    return turns


def flat_turns(record: dict[str, Any], asks: str, answers: str) -> Turns:
    turns: Turns = []
    history = record.get("history")
    if isinstance(history, str) and not history.strip():
        history = None
    if history not in (None, []):
        if not isinstance(history, list):
            raise Bad("no rounds")
        if all(isinstance(one, dict) for one in history):
            turns, history = turns_of(history), []
        for one in history:
            if not isinstance(one, list):
                raise Bad("no round")
            asked, answered = map(words_of, one)
            if not asked or not answered:
                raise Bad("says nothing")
            turns += [("user", asked), ("assistant", answered)]
    answer = spoken("assistant", record[answers])
    if len(answer) > 1 or not words_of(record[asks]) or not answer:
        raise Bad("nothing asked or answered")
    turns += [("user", words_of(record[asks])), *answer]
    system = words_of(record.get("system"))
    return [("system", system), *turns] if system else turns


def read_plainly(layout: str, record: dict[str, Any]) -> tuple[Turns, list[bytes]]:
    """The turns of a row, marks in one form, and its pictures in their order."""
    if layout in ("whole", "pairs"):
        value = record.get("messages", record.get("conversations"))
        if isinstance(value, str) and value[:1] in "[{":
            value = json.loads(value)
        turns = up_to_the_last_answer(turns_of(value))
    elif layout == "prompted":
        turns = spoken("user", record["prompt"])
        completion = spoken("assistant", record["completion"])
        if not turns or not completion or completion[0][0] != "assistant":
            raise Bad("nothing asked or answered")
        turns = turns + completion
    elif layout == "alpaca":
        turns = flat_turns(record, "instruction", "output")
    else:
        turns = flat_turns(record, "query", "response")
    roles = [role for role, _ in turns]
    if "system" in roles[1:] or roles[-1:] != ["assistant"] or roles[-2:-1] != ["user"]:
        raise Bad("wrong roles")
    return with_marks(turns, record["images"])


def with_marks(turns: Turns, names: Any) -> tuple[Turns, list[bytes]]:
    if names is None:
        names = []
    if isinstance(names, str):
        names = [names] if names else []
    images = [PICTURES[name] for name in names]
    found = re.findall(r"<image(?:[ _]?(\d{1,3}))?>", "\n".join(w for r, w in turns if r == "user"))
    numbers = [int(one) for one in found if one]
    if not found:
        return turns, images
    if numbers and len(numbers) != len(found):
        raise Bad("two kinds of marks")
    if numbers:
        first = list(dict.fromkeys(numbers))
        if sorted(first) != list(range(1, len(images) + 1)):
            raise Bad("not these pictures")
        images = [images[number - 1] for number in first]
        for number in first:
            for place, (role, words) in enumerate(turns):
                if role == "user" and re.search(rf"<image[ _]?0*{number}>", words):
                    turns[place] = (
                        role,
                        re.sub(rf"<image[ _]?0*{number}>", "<image>", words, count=1),
                    )
                    break
    elif len(found) != len(images):
        raise Bad("not as many pictures")
    place, first_asked = next((p, w) for p, (r, w) in enumerate(turns) if r == "user")
    start = re.match(r"\s*((<image>)\s*)*", first_asked)[0]
    if start.count("<image>") == len(images):
        rest = first_asked[len(start) :]
        turns[place] = "user", rest or "<image>" * len(images)
        return turns, images
    for place, (role, words) in enumerate(turns):
        if role == "user":
            while words != (words := re.sub(r"^((?:<image>)+)\s+", r"\1", words)):
                pass
            while words != (words := re.sub(r"\s+((?:<image>)+)$", r"\1", words)):
                pass
            turns[place] = role, words
    return turns, images


# -- what is changed -------------------------------------------------------------------------

JUNK: list[Any] = [
    *(None, True, 7, 2.5, "", " ", "text", "[1", "{", [], {}, [None], [[]], [{}], ["text"]),
    *({"role": "user"}, {"type": "image"}, [{"type": "text", "text": "typed"}], {"text": "x"}),
    *("<image>", "<image> and <image>", "<image 1> <image 2>", "tool", "observation", "user"),
    *([{"role": "user", "content": "x"}], [{"role": "assistant", "content": "x"}]),
]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a value with every key in it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    found = [(value, key) for key in keys if key != "images"]
    for key in keys:
        if isinstance(value[key], dict | list) and key != "images":
            found += places(value[key])
    return found


def mutated(rng: random.Random, record: dict[str, Any]) -> dict[str, Any]:
    record = copy.deepcopy(record)
    for _ in range(rng.choice([0, 1, 1, 2])):
        found = places(record)
        if not found:
            break
        container, key = rng.choice(found)
        change = rng.random()
        if change < 0.5:
            container[key] = copy.deepcopy(rng.choice(JUNK))
        elif change < 0.7:
            del container[key]
        elif change < 0.85 and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[rng.randrange(len(container))]))
        elif isinstance(container[key], str):
            at = rng.randint(0, len(container[key]))
            mark = rng.choice(["<image>", "<image 1>", "\n", " <image>", "<image_2>"])
            container[key] = container[key][:at] + mark + container[key][at:]
    if rng.random() < 0.15:
        record["images"] = rng.choice([None, [], "red.png", ["red.png", "red.png"], [*PICTURES]])
    return record


def made_record(seed: int, number: int) -> tuple[str, dict[str, Any]]:
    rng = random.Random(f"messages/{seed}/{number}")
    layout = rng.choice([*LAYOUTS])
    names = rng.sample([*PICTURES], rng.choice([0, 1, 1, 2, 3]))
    record = LAYOUTS[layout](rng, made_turns(rng, len(names))) | {"images": names}
    return layout, mutated(rng, record)


@pytest.fixture
def table(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    for name, data in PICTURES.items():
        (tmp_path / name).write_bytes(data)

    def write(records: list[dict[str, Any]]) -> Path:
        path = tmp_path / "train.jsonl"
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        return path

    return write


def compared(rows: list[Row], made: list[tuple[str, dict[str, Any]]], processor: Any) -> Counter:
    found: Counter[str] = Counter()
    for row, (layout, record) in zip(rows, made, strict=True):
        checked = check_row(row, RowKind.SFT, DataPrep())
        assert checked.reason != "unexpected content", (record, checked)
        try:
            expected = read_plainly(layout, copy.deepcopy(record))
        except (Bad, KeyError, ValueError, AttributeError, TypeError, StopIteration):
            assert checked.row is None, (layout, record, checked.row)
            found[checked.reason] += 1
            continue
        assert checked.row is not None, (layout, record, checked.reason, checked.detail)
        turns = [*row["prompt"], *row["completion"]]
        assert [(turn["role"], turn["content"]) for turn in turns] == expected[0], (layout, record)
        assert row["images"] == expected[1], (layout, record)
        if found["good"] % 10 == 0:
            ids = encode_sft(row, processor).input_ids
            count = len(expected[1]) * processor.num_image_tokens
            assert ids.count(processor.image_token_id) == count
        found["good"] += 1
    return found


def test_mutated_conversations_are_read_as_plain_python_reads_them(
    table: Callable[..., Path], processor: Any
) -> None:
    made = [made_record(0, number) for number in range(4_000)]
    source = Source(kind="table", path=str(table([record for _, record in made])))
    found = compared(list(sources.rows(source, RowKind.SFT, 0)), made, processor)
    print(found)
    assert found["good"] > 1_000
    assert found["damaged record"] > 500


def test_mutated_pairs_are_good_or_refused_for_a_reason(
    table: Callable[..., Path], processor: Any
) -> None:
    """A pair's sides put at the end of the same conversations: what is stored has one prompt."""
    records = []
    expected: list[Any] = []
    for number in range(1_500):
        layout, record = made_record(1, number)
        rng = random.Random(f"pairs/{number}")
        rejected = "never this"
        if layout == "prompted":
            record["chosen"] = record.pop("completion", None)
            record["rejected"] = rng.choice([rejected, [{"role": "bot", "content": rejected}]])
        else:
            record["rejected_response"] = rejected
        records.append(record)
        try:
            plain = copy.deepcopy(record)
            if layout == "prompted":
                plain["completion"] = plain["chosen"]
            if layout in ("whole", "pairs") and _ends_open(plain):
                raise Bad("no answer to choose")
            expected.append(read_plainly(layout, plain))
        except (Bad, KeyError, ValueError, AttributeError, TypeError, StopIteration):
            expected.append(None)
    source = Source(kind="table", path=str(table(records)))
    good = 0
    for row, record, known in zip(
        sources.rows(source, RowKind.PREFERENCE, 0), records, expected, strict=True
    ):
        checked = check_row(row, RowKind.PREFERENCE, DataPrep())
        assert checked.reason != "unexpected content", (record, checked)
        assert (checked.row is None) == (known is None), (record, checked.detail, known)
        if known is None:
            continue
        good += 1
        chosen = [(turn["role"], turn["content"]) for turn in [*row["prompt"], *row["chosen"]]]
        assert (chosen, row["images"]) == known
        assert row["rejected"] == [{"role": "assistant", "content": "never this"}]
        if good % 10 == 0:
            prompt = encode_preference(row, processor)[0].labels.count(-100)
            one, other = encode_preference(row, processor)
            assert one.input_ids[:prompt] == other.input_ids[:prompt]
    assert good > 300


def _ends_open(record: dict[str, Any]) -> bool:
    value = record.get("messages", record.get("conversations"))
    if isinstance(value, str) and value[:1] in "[{":
        value = json.loads(value)
    return turns_of(value)[-1][0] != "assistant"
