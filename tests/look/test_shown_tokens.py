"""What is shown of a row is what the chat template renders, and learnt is what labels say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from siqvl.data.preparation.checks import check_row
from siqvl.data.schema import RowKind, evaluation_row, message, preference_row, sft_row
from siqvl.look.first_rows import _encoded, _encoder
from siqvl.look.looked import Sequence
from siqvl.look.recipe_processor import local_processor
from siqvl.look.shown_tokens import placed_texts, refused_texts, sequences_of
from siqvl.look.subjects import of_recipe
from siqvl.recipe import DataPrep, Recipe
from tests.data.made_pictures import picture
from tests.look.test_doubts import tiny

RED, BLUE = picture("red"), picture("blue")
TURNS = [
    message("system", "Be brief."),
    message("user", "A: <image> B: <image> Which is red?"),
    message("assistant", "A <image>"),
    message("user", "And blue?"),
]
SHOWN: dict[str, tuple[RowKind, dict[str, Any]]] = {
    "a question": (RowKind.SFT, sft_row("a", [RED], "What color?", "red", source="s")),
    "no picture": (RowKind.SFT, sft_row("a", [], "1 + 1?", "2", source="s")),
    "two pictures before a turn": (
        RowKind.SFT,
        sft_row("a", [RED, BLUE], "Same?", "é", source="s"),
    ),
    "places": (RowKind.SFT, sft_row("a", [RED, BLUE], TURNS, "B", source="s")),
    "a pair": (RowKind.PREFERENCE, preference_row("a", [RED], "Color?", "red", "blue", source="s")),
    "a benchmark": (
        RowKind.EVALUATION,
        evaluation_row("a", [RED], "Color?", ["red"], benchmark="b", split="test", source="s"),
    ),
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.model_validate(tiny())


@pytest.fixture(scope="module")
def processor(recipe: Recipe) -> Any:
    return local_processor(recipe)[0]


def shown(name: str, recipe: Recipe, processor: Any) -> tuple[dict[str, Any], list[Sequence]]:
    kind, row = SHOWN[name]
    checked = check_row(row, kind, DataPrep())
    subject = next(one for one in of_recipe(recipe) if one.kind is kind and not one.suffix)
    sides, _ = _encoded(checked, _encoder(subject, processor), subject.stage)
    assert checked.row is not None
    return checked.row, sequences_of(sides, kind, processor)


def rendered(turns: list[dict[str, str]], pictures: int, processor: Any, prompt: bool) -> str:
    """The chat template's own text, its placeholders as they stand."""
    content: list[dict[str, Any]] = []
    marked = any("<image>" in turn["content"] for turn in turns if turn["role"] == "user")
    for turn in turns:
        parts: list[dict[str, str]] = []
        texts = turn["content"].split("<image>") if turn["role"] == "user" else [turn["content"]]
        for number, text in enumerate(texts):
            parts += [{"type": "image"}] * bool(number) + [{"type": "text", "text": text}]
        content.append({"role": turn["role"], "content": parts})
    if not marked:
        first = next(turn for turn in content if turn["role"] == "user")
        first["content"][:0] = [{"type": "image"}] * pictures
    return processor.apply_chat_template(content, tokenize=False, add_generation_prompt=prompt)


@pytest.mark.parametrize("name", SHOWN)
def test_spans_put_together_are_what_the_template_renders(
    name: str, recipe: Recipe, processor: Any
) -> None:
    row, found = shown(name, recipe, processor)
    asked = row.get("prompt") or [message("user", row["question"])]
    answers = [row[side] for side in ("completion", "chosen", "rejected") if side in row]
    prompt = rendered(asked, len(row["images"]), processor, True)
    assert len(found) == max(1, len(answers))
    for number, sequence in enumerate(found):
        text = "".join(
            "<|image_pad|>" if span.kind == "picture" else span.text for span in sequence.spans
        )
        answer = f"{answers[number][0]['content']}<|im_end|>" if answers else ""
        assert text == (answer if number else prompt + answer)
        learnt = [span.text for span in sequence.spans if span.kind == "learnt"]
        assert learnt == [answer] * bool(answer)
        pictures = [span.tokens for span in sequence.spans if span.kind == "picture"]
        assert pictures == [processor.num_image_tokens] * (0 if number else len(row["images"]))
        if not number:
            assert sum(span.tokens for span in sequence.spans) == sequence.tokens


@pytest.mark.parametrize("name", SHOWN)
def test_placeholders_stand_where_the_template_puts_pictures(
    name: str, recipe: Recipe, processor: Any
) -> None:
    row, _ = shown(name, recipe, processor)
    asked = row.get("prompt") or [message("user", row["question"])]
    text = rendered(asked, len(row["images"]), processor, False)
    text = text.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>")
    turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", text, re.DOTALL)
    assert placed_texts(row, SHOWN[name][0], "")[: len(turns)] == turns


def test_the_suffix_of_a_benchmark_is_shown() -> None:
    _, row = SHOWN["a benchmark"]
    assert placed_texts(row, RowKind.EVALUATION, "\nIn a word.") == [
        ("user", "<image>Color?\nIn a word.")
    ]


@pytest.mark.parametrize(
    "row", [None, {}, {"prompt": 3, "completion": [None, {"role": 1, "content": "x"}]}]
)
def test_of_a_refused_row_only_texts_are_shown(row: Any) -> None:
    assert refused_texts(row, RowKind.SFT) == []
    said = {"prompt": [message("user", "What?")], "completion": ""}
    assert refused_texts(said, RowKind.SFT) == [("user", "What?")]


def test_the_hub_is_not_asked_for_a_processor(recipe: Recipe, tmp_path: Path) -> None:
    content = recipe.model_dump(mode="json")
    content["model"]["language"] = "nobody/no-such-model"
    processor, why = local_processor(Recipe.model_validate(content))
    assert processor is None
    assert "nobody/no-such-model are not on this machine" in why
