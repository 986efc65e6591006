"""The parts that make the tiny base weights, and the weights that were made."""

import json
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoTokenizer

from siqvl.data.schema import REASONING_PROMPT
from siqvl.data.shapes.scenes import COLORS, HELD_OUT, SHAPES
from siqvl.tiny_base.corpus import text_row
from siqvl.tiny_base.tokenizer import SPECIAL_TOKENS, train_tokenizer
from siqvl.tiny_base.vision_tower import CORNER_OF, NOTHING, scene_batch
from siqvl.tiny_base.words import lines

BASE = Path(__file__).parents[2] / "recipes" / "tiny_base"


def test_patches_are_told_the_corner_they_lie_in() -> None:
    rows = [CORNER_OF[start : start + 8] for start in range(0, 64, 8)]
    assert rows[0] == rows[3] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert rows[4] == rows[7] == [2, 2, 2, 2, 3, 3, 3, 3]


def test_labels_say_what_is_drawn() -> None:
    pictures, labels = scene_batch("train", seed=0, step=0, size=32)
    for picture, corners in zip(pictures, labels, strict=True):
        for cell, (color, shape, told) in enumerate(corners):
            assert told == cell
            center = (16 + 32 * (cell % 2), 16 + 32 * (cell // 2))
            red, green, blue = picture.getpixel(center)
            if (color, shape) == (NOTHING, NOTHING):
                assert min(red, green, blue) >= 230  # paper
            else:
                drawn = list(COLORS.values())[color]
                assert max(abs(a - b) for a, b in zip((red, green, blue), drawn, strict=True)) < 12
                assert (list(COLORS)[color], SHAPES[shape]) not in {
                    (look.color, look.shape) for look in HELD_OUT
                }
    assert isinstance(pictures[0], Image.Image)


def test_the_corpus_is_deterministic_and_never_shows_a_held_out_pair() -> None:
    rows = [text_row(index, 3) for index in range(400)]
    assert rows == [text_row(index, 3) for index in range(400)]
    text = json.dumps(rows)
    for look in HELD_OUT:
        assert str(look) not in text
    assert all(row["images"] == [] for row in rows)


def test_the_tokenizer_encodes_anything_and_keeps_control_tokens_whole() -> None:
    tokenizer = train_tokenizer(["a red circle at the top left"] * 9, vocabulary=300)
    for text in ("a red circle", "Ünïcode ≠ ASCII 🙂", "line\nbreak\t 12345"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    for token in SPECIAL_TOKENS:
        assert len(tokenizer(token)["input_ids"]) == 1
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_rows_ask_several_questions_once_each() -> None:
    rows = [text_row(index, 0) for index in range(200)]
    for row in rows:
        said = [turn["content"] for turn in row["prompt"] if turn["role"] == "user"]
        assert said[0].startswith("Picture: ")
        asked = [said[0].partition("\n")[2], *said[1:]]
        assert len(set(asked)) == len(asked) == 3


def test_written_steps_come_where_they_are_asked_for() -> None:
    reasoned = 0
    for index in range(200):
        row = text_row(index, 0)
        turns = row["prompt"] + row["completion"]
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            asked_for = question["content"].endswith(REASONING_PROMPT)
            assert ("Answer: " in answer["content"]) == asked_for
            reasoned += asked_for
    assert 120 < reasoned < 240  # three in ten of 600


def test_the_shipped_tokenizer_knows_words_that_the_world_has_not() -> None:
    tokenizer = AutoTokenizer.from_pretrained(BASE / "language")
    for text, most in (("user", 1), ("assistant", 1), (" the largest number of sides", 5)):
        assert len(tokenizer(text)["input_ids"]) <= most
    words = {line.strip() for line in lines()}
    whole = sum(len(tokenizer(f" {word}")["input_ids"]) == 1 for word in words)
    assert whole > 0.8 * len(words)


def test_the_shipped_weights_are_small_safetensors() -> None:
    files = [path for path in BASE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".jinja"}


@pytest.mark.parametrize("part", ["vision", "language"])
def test_the_card_holds_the_scores_that_the_script_wrote(part: str) -> None:
    card = (BASE / "README.md").read_text(encoding="utf-8")
    for score in json.loads((BASE / part / "scores.json").read_text()).values():
        assert f"{100 * score:.1f} %" in card
