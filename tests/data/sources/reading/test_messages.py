"""Conversations in every published layout: TRL's, LLaMA-Factory's, ms-swift's, the hub's.

What TRL has functions for is compared with them; all else with turns written out by hand.
"""

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from siqvl.data.encode import encode_prompt
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import Row, RowKind
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture
from tests.data.sources.published_files import read

RED, BLUE = picture("red"), picture("blue")
Turns = list[tuple[str, str]]


@pytest.fixture
def rows_of(tmp_path: Path) -> Callable[..., list[Row]]:
    """Rows of a table of JSON lines that lies beside red.png and blue.png."""
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "blue.png").write_bytes(BLUE)

    def make(*records: dict[str, Any], kind: RowKind = RowKind.SFT, **columns: str) -> list[Row]:
        lines = "\n".join(json.dumps(record) for record in records)
        (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
        source = Source(kind="table", path=str(tmp_path / "train.jsonl"), columns=columns)
        return read(source, kind)

    return make


def turns(row: Row, *columns: str) -> Turns:
    assert "damaged" not in row, row["damaged"]
    columns = columns or ("prompt", "completion")
    return [(turn["role"], turn["content"]) for name in columns for turn in row[name]]


def role(name: str, content: Any) -> dict[str, Any]:
    return {"role": name, "content": content}


def said(name: str, value: Any) -> dict[str, Any]:
    return {"from": name, "value": value}


IMAGE = {"type": "image"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


ASKED = [("user", "What color?"), ("assistant", "red")]
LONGER = [("user", "Hi."), ("assistant", "Hello."), *ASKED]
BRIEF = [("system", "Be brief."), *ASKED]
ONE = {"images": ["red.png"]}

#: Layout -> a published row and its turns; the picture is in front of the first user turn.
LAYOUTS: dict[str, tuple[dict[str, Any], Turns]] = {
    "case 07: typed parts": (
        ONE
        | {
            "messages": [
                role("user", [IMAGE, text("What color?")]),
                role("assistant", [text("red")]),
            ]
        },
        ASKED,
    ),
    "case 07d: TRL, prompt and completion": (
        {
            "image": "red.png",
            "prompt": [role("user", "What color?")],
            "completion": [role("assistant", "red")],
        },
        ASKED,
    ),
    "case 08: an empty system turn": (
        ONE
        | {
            "messages": [
                role("system", ""),
                role("user", "<image>What color?"),
                role("assistant", "red"),
            ]
        },
        ASKED,
    ),
    "TRL, plain text": (ONE | {"prompt": "What color?", "completion": "red"}, ASKED),
    "TRL, a prompt with a system turn": (
        ONE
        | {
            "prompt": [role("system", "Be brief."), role("user", "What color?")],
            "completion": [role("assistant", "red")],
        },
        BRIEF,
    ),
    "LLaVA": (
        ONE
        | {"conversations": [said("human", "<image>\nWhat color?"), said("gpt", "red")]},
        ASKED,
    ),
    "alpaca": (ONE | {"instruction": "What color?", "input": "", "output": "red"}, ASKED),
    "alpaca, all of it": (
        ONE
        | {
            "instruction": "What",
            "input": "color?",
            "output": "red",
            "system": "Be brief.",
            "history": [["Hi.", "Hello."]],
        },
        [BRIEF[0], ("user", "Hi."), ("assistant", "Hello."), ("user", "What\ncolor?"), ASKED[1]],
    ),
    "sharegpt with a system column": (
        ONE
        | {
            "conversations": [said("human", "<image>What color?"), said("gpt", "red")],
            "system": "Be brief.",
        },
        BRIEF,
    ),
    "sharegpt with its system turn beside an equal column": (
        ONE
        | {
            "conversations": [
                said("system", "Be brief."),
                said("human", "What color?"),
                said("gpt", "red"),
            ],
            "system": "Be brief.",
        },
        BRIEF,
    ),
    "ms-swift, query and response": (
        ONE
        | {
            "query": "<image>What color?",
            "response": "red",
            "history": [["Hi.", "Hello."]],
            "system": None,
        },
        [("user", "Hi."), ("assistant", "Hello."), ("user", "<image>What color?"), ASKED[1]],
    ),
    "history as turns": (
        ONE
        | {
            "query": "What color?",
            "response": "red",
            "history": [role("user", "Hi."), role("assistant", "Hello.")],
        },
        LONGER,
    ),
    "an object of lists": (
        ONE
        | {
            "messages": {
                "role": ["user", "assistant"],
                "content": ["<image>What color?", "red"],
            }
        },
        ASKED,
    ),
    "an object of lists, from and value": (
        ONE | {"conversations": {"from": ["human", "gpt"], "value": ["What color?", "red"]}},
        ASKED,
    ),
    "an object of lists of user and assistant": (
        ONE
        | {"conversations": {"user": ["Hi.", "What color?"], "assistant": ["Hello.", "red"]}},
        LONGER,
    ),
    "FineVision's pairs": (
        ONE
        | {
            "conversations": [
                {"user": "Hi.", "assistant": "Hello."},
                {"user": "What color?", "assistant": "red", "source": "x"},
            ]
        },
        LONGER,
    ),
    "JSON text, as in a CSV": (
        ONE | {"messages": json.dumps([role("USER", "What color?"), role("ASSISTANT", "red")])},
        ASKED,
    ),
    "columns of concatenated sets": (
        ONE
        | {
            "messages": [
                {"role": "user", "content": "What color?", "from": None, "value": None},
                {"role": None, "content": None, "from": "gpt", "value": "red"},
            ],
            "conversations": None,
            "prompt": None,
        },
        ASKED,
    ),
    "parts of an Arrow table": (
        ONE
        | {
            "messages": [
                role(
                    "user",
                    [
                        {"type": "image", "text": None, "image": None},
                        {"type": "text", "text": "What color?", "image": None},
                    ],
                ),
                role("assistant", [{"type": "text", "text": "red", "image": None}]),
            ]
        },
        ASKED,
    ),
    "a number as an answer": (
        ONE | {"messages": [role("user", "How many?"), role("assistant", 3)]},
        [("user", "How many?"), ("assistant", "3")],
    ),
    "nothing but a picture": (
        ONE
        | {
            "messages": [
                role("user", "<image>"),
                role("assistant", "Yes?"),
                role("user", "What color?"),
                role("assistant", "red"),
            ]
        },
        [("user", "<image>"), ("assistant", "Yes?"), *ASKED],
    ),
    "what follows the last answer": (
        ONE
        | {
            "messages": [
                role("user", "What color?"),
                role("assistant", "red"),
                role("user", "Thanks."),
            ]
        },
        ASKED,
    ),
    "a mark in what the assistant says": (
        ONE
        | {"messages": [role("user", "<image>What color?"), role("assistant", "<image> is red")]},
        [ASKED[0], ("assistant", "<image> is red")],
    ),
    "text that looks like JSON": (
        ONE | {"prompt": "[1]", "completion": '[{"role": "user", "content": "x"}]'},
        [("user", "[1]"), ("assistant", '[{"role": "user", "content": "x"}]')],
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout(layout: str, rows_of: Callable[..., list[Row]]) -> None:
    record, expected = LAYOUTS[layout]
    (row,) = rows_of(record)
    assert turns(row) == expected
    assert len(row["completion"]) == 1
    assert row["images"] == [RED]


@pytest.mark.parametrize("name", ["human", "user", "USER", " Human "])
@pytest.mark.parametrize("other", ["gpt", "assistant", "bot", "chatgpt", "model", "Assistant"])
def test_names_of_roles(name: str, other: str, rows_of: Callable[..., list[Row]]) -> None:
    (row,) = rows_of(ONE | {"conversations": [said(name, "What color?"), said(other, "red")]})
    assert turns(row) == ASKED


def test_case_09_places_are_kept(rows_of: Callable[..., list[Row]], processor: Any) -> None:
    two = {"images": ["red.png", "blue.png"]}
    first = [
        *(said("human", "<image>\nWhat color is this?"), said("gpt", "red")),
        *(said("human", "<image>\nAnd this?"), said("gpt", "blue")),
    ]
    second = [said("human", "A: <image> B: <image> Which one is red?"), said("gpt", "A")]
    in_turns, inside = rows_of(two | {"conversations": first}, two | {"conversations": second})
    assert [in_turns["images"], inside["images"]] == [[RED, BLUE]] * 2
    by_hand: list[list[dict[str, Any]]] = [
        [
            role("user", [IMAGE, text("What color is this?")]),
            role("assistant", [text("red")]),
            role("user", [IMAGE, text("And this?")]),
        ],
        [role("user", [text("A: "), IMAGE, text(" B: "), IMAGE, text(" Which one is red?")])],
    ]
    for row, parts in zip((in_turns, inside), by_hand, strict=True):
        rendered = processor.apply_chat_template(parts, add_generation_prompt=True)
        token = processor.image_token
        found = processor.tokenizer.decode(encode_prompt(row, processor).input_ids)
        assert found.replace(token * processor.num_image_tokens, token) == rendered


def test_typed_parts_keep_their_places(rows_of: Callable[..., list[Row]]) -> None:
    asked = [text("A: "), IMAGE, text(" B: "), IMAGE, text(" Which is red?")]
    record = {"images": ["red.png", "blue.png"], "messages": [role("user", asked)]}
    record["messages"].append(role("assistant", "A"))
    (row,) = rows_of(record)
    assert turns(row)[0] == ("user", "A: <image> B: <image> Which is red?")
    assert row["images"] == [RED, BLUE]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "red.png"},
        {"type": "image", "path": "red.png"},
        {"type": "image_url", "image_url": {"url": "red.png"}},
        {"type": "image_url", "image_url": "red.png"},
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64," + base64.b64encode(RED).decode()},
        },
        {  # in lines, as the programs `base64` and `openssl` write it
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64,\n" + base64.encodebytes(RED).decode()},
        },
        {"image": "red.png"},  # Qwen-VL
    ],
)
def test_pictures_inside_of_parts(part: dict[str, Any], rows_of: Callable[..., list[Row]]) -> None:
    messages = [role("user", [text("What color?"), part]), role("assistant", "red")]
    alone, beside, more = rows_of(
        {"messages": messages},
        {"messages": messages, "images": ["red.png"]},
        {"messages": messages, "images": ["red.png", "blue.png"]},
    )
    for row in (alone, beside):
        assert turns(row) == [("user", "What color?<image>"), ASKED[1]]
        assert row["images"] == [RED]
    assert more["damaged"] == "1 pictures in its turns, but 2 in its picture column"


def test_pictures_of_a_parquet_file_inside_of_parts(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = [{"type": "image", "image": {"bytes": RED, "path": None}}, text("What color?")]
    messages = [role("user", parts), role("assistant", [text("red")])]
    pq.write_table(pa.Table.from_pylist([{"messages": messages}]), tmp_path / "t.parquet")
    (row,) = read(Source(kind="table", path=str(tmp_path / "t.parquet")), RowKind.SFT)
    assert (row["images"], turns(row)) == ([RED], ASKED)


ANSWER = [role("assistant", "red")], [role("assistant", "blue")]
USER = role("user", "What color?")

#: Layout -> a published pair; asked is "What color?", chosen "red", rejected "blue".
PAIRS: dict[str, dict[str, Any]] = {
    "case 07b: TRL": {"prompt": [USER], "chosen": ANSWER[0], "rejected": ANSWER[1]},
    "TRL, plain text": {"prompt": "What color?", "chosen": "red", "rejected": "blue"},
    "TRL, the prompt on both sides": {
        "chosen": [USER, *ANSWER[0]],
        "rejected": [USER, *ANSWER[1]],
    },
    "TRL, on both sides and as text": {
        "prompt": "What color?",
        "chosen": [USER, *ANSWER[0]],
        "rejected": [USER, *ANSWER[1]],
    },
    "typed parts": {
        "prompt": [role("user", [IMAGE, text("What color?")])],
        "chosen": [role("assistant", [text("red")])],
        "rejected": [role("assistant", [text("blue")])],
    },
    "a question": {"question": "What color?", "chosen": "red", "rejected": "blue"},
    "LLaMA-Factory, sharegpt": {
        "conversations": [said("human", "<image>What color?")],
        "chosen": said("gpt", "red"),
        "rejected": said("gpt", "blue"),
    },
    "LLaMA-Factory, alpaca": {
        "instruction": "What color?",
        "input": "",
        "chosen": "red",
        "rejected": "blue",
    },
    "ms-swift": {"messages": [USER, *ANSWER[0]], "rejected_response": "blue"},
    "ms-swift, query and response": {
        "query": "What color?",
        "response": "red",
        "rejected_response": "blue",
    },
    "a conversation that holds the chosen answer": {
        "messages": [USER, *ANSWER[0]],
        "chosen": ANSWER[0],
        "rejected": ANSWER[1],
    },
}


@pytest.mark.parametrize("layout", PAIRS)
def test_a_published_pair(layout: str, rows_of: Callable[..., list[Row]]) -> None:
    (row,) = rows_of(ONE | PAIRS[layout], kind=RowKind.PREFERENCE)
    assert turns(row, "prompt", "chosen", "rejected") == [*ASKED, ("assistant", "blue")]
    assert row["images"] == [RED]


def test_text_that_looks_like_a_conversation_is_text(rows_of: Callable[..., list[Row]]) -> None:
    sides = {"chosen": json.dumps(ANSWER[0]), "rejected": "[]"}
    (row,) = rows_of(ONE | {"prompt": "What?"} | sides, kind=RowKind.PREFERENCE)
    assert turns(row, "chosen", "rejected") == [("assistant", text) for text in sides.values()]


IMPLICIT = [
    ([USER, *ANSWER[0]], [USER, *ANSWER[1]]),
    ([role("system", "x"), USER, *ANSWER[0]], [role("system", "x"), USER, *ANSWER[1]]),
    (
        [USER, *ANSWER[0], role("user", "Sure?"), role("assistant", "yes")],
        [USER, *ANSWER[0], role("user", "Sure?"), role("assistant", "no")],
    ),
    (  # they part early: both have several answers
        [USER, *ANSWER[0], role("user", "Sure?"), role("assistant", "yes")],
        [USER, *ANSWER[1], role("user", "Sure?"), role("assistant", "yes")],
    ),
    (  # one is longer than the other, and begins with it
        [USER, *ANSWER[0], role("user", "Sure?"), role("assistant", "yes")],
        [USER, *ANSWER[0]],
    ),
]


@pytest.mark.parametrize(("chosen", "rejected"), IMPLICIT)
@pytest.mark.parametrize("prompt", [None, "What color?", [USER]])
def test_prompts_are_extracted_as_trl_does(
    chosen: Any, rejected: Any, prompt: Any, rows_of: Callable[..., list[Row]]
) -> None:
    from trl.data_utils import maybe_extract_prompt

    record = {"chosen": chosen, "rejected": rejected}
    if prompt is not None:
        record["prompt"] = prompt
    expected = maybe_extract_prompt(copy.deepcopy(record))
    (row,) = rows_of(ONE | record, kind=RowKind.PREFERENCE)
    for side in ("prompt", "chosen", "rejected"):
        assert row[side] == expected[side]


@pytest.mark.parametrize(
    "layout",
    [
        *("case 07: typed parts", "case 07d: TRL, prompt and completion"),
        *("TRL, a prompt with a system turn", "nothing but a picture"),
    ],
)
def test_turns_and_pictures_stand_where_trl_puts_them(
    layout: str, rows_of: Callable[..., list[Row]], processor: Any
) -> None:
    """Every layout that TRL knows, by its own functions from the published row to text."""
    from trl.data_utils import maybe_convert_to_chatml, prepare_multimodal_messages

    record = maybe_convert_to_chatml(copy.deepcopy(LAYOUTS[layout][0]))
    messages = record["prompt"] if "prompt" in record else record["messages"][:-1]
    for turn in messages:  # TRL has no marks: theirs are typed parts, or in front
        if isinstance(turn["content"], str):
            turn["content"] = turn["content"].replace("<image>", "").strip()
    asked = prepare_multimodal_messages(messages, ["red.png"])
    for turn in asked:
        turn["content"] = [item for item in turn["content"] if item.get("text") != ""]
    rendered = processor.apply_chat_template(asked, add_generation_prompt=True)
    (row,) = rows_of(LAYOUTS[layout][0])
    found = processor.tokenizer.decode(encode_prompt(row, processor).input_ids)
    token = processor.image_token
    assert found.replace(token * processor.num_image_tokens, token) == rendered


NOT_UNDERSTOOD: list[tuple[dict[str, Any], str]] = [
    *(
        (
            {
                "messages": [
                    {"role": "user", "content": "Q?"},
                    {"role": "assistant", "content": "a", key: value},
                ]
            },
            f"turn 2 of messages is not to be learnt (`{key}`), which is not read: leave the "
            "row out",
        )
        for key, value in (("loss", False), ("weight", 0))
    ),
    (
        {"messages": [USER, *ANSWER[0], role("observation", "x")]},
        'turn 3 of messages has role "observation": known are assistant, bard, bing, bot, '
        "chatgpt, gpt, human, model, system, user",
    ),
    ({"messages": [USER, role("tool", "x"), *ANSWER[0]]}, 'turn 2 of messages has role "tool": '),
    ({"messages": [{"role": 3, "content": "x"}]}, "turn 1 of messages has a number for its role: "),
    (
        {"messages": [USER, {"role": "assistant", "tool_calls": [{}]}]},
        "turn 2 of messages has `tool_calls`, and tools are not read",
    ),
    ({"conversations": 7}, "conversations is a number, expected a list of turns"),
    ({"conversations": True}, "conversations is true, expected a list of turns"),
    ({"conversations": "text"}, "conversations is text, expected a list of turns"),
    ({"conversations": "[{"}, "conversations is text, expected a list of turns"),
    ({"conversations": []}, "conversations has no turns"),
    ({"messages": {"role": [], "content": []}}, "messages has no turns"),
    ({"messages": ["What?", "red"]}, "turn 1 of messages is text, expected an object of role"),
    ({"messages": [[]]}, "turn 1 of messages is a list, expected an object of role"),
    (
        {"messages": [{"speaker": "A", "words": "x"}]},
        "turn 1 of messages has `speaker`, `words`, expected `role` and `content`, ",
    ),
    (
        {"messages": {"role": ["user", "assistant"], "content": ["x"]}},
        "messages is an object of lists that differ in length: 2 of `role`, 1 of `content`",
    ),
    (
        {"messages": [USER, *ANSWER[0], USER, role("assistant", " ")]},
        "turn 4 of messages is empty: the assistant says nothing",
    ),
    (
        {"messages": [USER, role("assistant", None), USER, *ANSWER[0]]},
        "turn 2 of messages is empty: the assistant says nothing",
    ),
    ({"messages": [role("user", ""), *ANSWER[0]]}, "turn 1 of messages is empty: the user says no"),
    (
        {"messages": [{"user": "Hi.", "assistant": None}]},
        "turn 1 of messages is empty: the assistant says nothing",
    ),
    ({"messages": [USER]}, "messages has no turn of the assistant: nothing is answered"),
    ({"messages": ANSWER[0]}, "messages begins with its last answer: nothing is asked"),
    (
        {"messages": [role("user", True), *ANSWER[0]]},
        "what the user says in turn 1 of messages is true, expected text",
    ),
    (
        {"messages": [role("user", {"text": "x"}), *ANSWER[0]]},
        "what the user says in turn 1 of messages is an object, expected text",
    ),
    (
        {"messages": [role("user", [text("x"), {"type": "video"}]), *ANSWER[0]]},
        'part 2 of turn 1 of messages has type "video": known are image, image_url, text',
    ),
    (
        {"messages": [role("user", ["x"]), *ANSWER[0]]},
        "part 1 of turn 1 of messages is text, expected an object with a `type`",
    ),
    (
        {"messages": [role("user", [{"type": "text", "content": "x"}]), *ANSWER[0]]},
        "part 1 of turn 1 of messages is no text",
    ),
    (
        {"messages": [role("user", [IMAGE | {"text": "x"}]), *ANSWER[0]]},
        "part 1 of turn 1 of messages is a picture beside text",
    ),
    (
        {"messages": [role("user", [text("x")]), role("assistant", [IMAGE])]},
        "part 1 of turn 2 of messages is a picture that no user shows",
    ),
    (
        {"messages": [role("user", [IMAGE, IMAGE, text("x")]), *ANSWER[0]]},
        "2 <image> marks in its text, but 1 pictures",
    ),
    (
        {"messages": [said("user", "x") | {"content": "y"}, *ANSWER[0]]},
        "turn 1 of messages has both `content` and `value`, which differ",
    ),
    (
        {"messages": [USER, *ANSWER[0]], "conversations": [USER, *ANSWER[1]]},
        "`conversations` and `messages` are filled, and differ: map the one that is meant",
    ),
    (
        {"messages": [role("system", "x"), USER, *ANSWER[0]], "system": "y"},
        "its `system` column says something else than its system turn",
    ),
    ({"prompt": "What?", "completion": ""}, "`prompt` is filled, but `completion` is not"),
    ({"prompt": "", "completion": "red"}, "`completion` is filled, but `prompt` is not"),
    ({"query": "x", "response": "y", "history": "z"}, "history is text, expected a list of rounds"),
    (
        {"query": "x", "response": "y", "history": [["a"]]},
        "round 1 of history is a list, expected what was asked and answered",
    ),
    (
        {"query": "x", "response": "y", "history": [["a", "b"], ["a", ""]]},
        "round 2 of history is empty: nothing is asked, or nothing answered",
    ),
    ({"instruction": "x", "output": {"a": 1}}, "turn 1 of output has `a`, expected `role` and"),
    ({"instruction": "x", "input": [], "output": "y"}, "input is a list, expected text"),
]


@pytest.mark.parametrize(("record", "reason"), NOT_UNDERSTOOD)
def test_what_is_not_understood_is_called_that(
    record: dict[str, Any], reason: str, rows_of: Callable[..., list[Row]]
) -> None:
    (row,) = rows_of(ONE | record)
    assert row["damaged"].startswith(reason)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            {"messages": [USER, *ANSWER[0], USER], "rejected_response": "blue"},
            "messages does not end with the answer that is to be chosen",
        ),
        (
            {"messages": [USER, *ANSWER[0]], "chosen": "green", "rejected": "blue"},
            "messages ends with an answer that is neither `chosen` nor `rejected`",
        ),
        (
            {"prompt": "a?", "question": "b?", "chosen": "red", "rejected": "blue"},
            "`question` and `prompt` are filled, and differ: map the one that is meant",
        ),
        (
            {"prompt": "a?", "chosen": [role("observation", "x")], "rejected": "blue"},
            'turn 1 of chosen has role "observation"',
        ),
    ],
)
def test_a_pair_that_is_not_understood_is_called_that(
    record: dict[str, Any], reason: str, rows_of: Callable[..., list[Row]]
) -> None:
    (row,) = rows_of(ONE | record, kind=RowKind.PREFERENCE)
    assert row["damaged"].startswith(reason)


def test_what_is_mapped_is_meant(rows_of: Callable[..., list[Row]]) -> None:
    record = ONE | {
        "messages": [USER, *ANSWER[0]],
        "chat": [role("user", "Which?"), *ANSWER[1]],
        "prompt": "Other?",
        "completion": "green",
    }
    (row,) = rows_of(record, conversations="chat")
    assert turns(row) == [("user", "Which?"), ("assistant", "blue")]


def test_the_same_in_two_columns_is_no_contradiction(rows_of: Callable[..., list[Row]]) -> None:
    said_twice = {
        "messages": [USER, *ANSWER[0]],
        "conversations": [said("human", "What color?"), said("gpt", "red")],
    }
    (row,) = rows_of(ONE | said_twice)
    assert turns(row) == ASKED


def test_prepared_rows_keep_their_marks(tmp_path: Path, rows_of: Callable[..., list[Row]]) -> None:
    ask = "A: <image> B: <image> Which is red?"
    rows_of({"images": ["red.png", "blue.png"], "messages": [role("user", ask), *ANSWER[0]]})
    source = Source(kind="table", path=str(tmp_path / "train.jsonl"))
    manifest = prepare([source], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    assert manifest.rows == 1
    assert ask.replace("<", "&lt;").replace(">", "&gt;") in (
        tmp_path / "out" / "report.html"
    ).read_text(encoding="utf-8")
