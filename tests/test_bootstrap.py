"""The parts that make the tiny base weights, and the weights that were made."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from siqvl.bootstrap.corpus import text_row
from siqvl.bootstrap.tokenizer import SPECIAL_TOKENS, train_tokenizer
from siqvl.bootstrap.tower import NOTHING, corner_features, scene_batch
from siqvl.data.shapes.scenes import COLORS, HELD_OUT, SHAPES

BASE = Path(__file__).parent.parent / "recipes" / "tiny_base"


def test_corner_features_are_means_of_quadrants() -> None:
    grid = torch.zeros(4, 4)
    grid[:2, :2], grid[:2, 2:], grid[2:, :2], grid[2:, 2:] = 1, 2, 3, 4
    grid[0, 0] += 4  # its quadrant's mean rises by one
    assert corner_features(grid.view(1, 16, 1)).flatten().tolist() == [2, 2, 3, 4]


def test_labels_say_what_is_drawn() -> None:
    pictures, labels = scene_batch("train", seed=0, step=0, size=32)
    for picture, corners in zip(pictures, labels, strict=True):
        for cell, (color, shape) in enumerate(corners):
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
    rows = [text_row(index, seed=3) for index in range(400)]
    assert rows == [text_row(index, seed=3) for index in range(400)]
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


def test_the_shipped_weights_are_small_safetensors() -> None:
    files = [path for path in BASE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".jinja"}


@pytest.mark.parametrize("part", ["vision", "language"])
def test_the_card_holds_the_scores_that_the_script_wrote(part: str) -> None:
    card = (BASE / "README.md").read_text(encoding="utf-8")
    for score in json.loads((BASE / part / "scores.json").read_text()).values():
        assert f"{100 * score:.1f} %" in card
