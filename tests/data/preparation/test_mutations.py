"""Rows and pictures broken in every way: each is stored well, left out, or refused for a reason.

The good rows that the mutations start from are of every kind, with pictures of every format. What
is stored is judged with Pillow and by the limits, not by our own checks.
"""

import io
import json
import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from siqvl.data.preparation.checks import Checked, check_row
from siqvl.data.preparation.prepare import load_prepared, prepare
from siqvl.data.schema import Row, RowKind, evaluation_row, left_out_row, preference_row, sft_row
from siqvl.recipe import DataPrep
from tests.data.made_pictures import bomb, encoded

LIMITS = DataPrep(max_image_pixels=40_000, max_images=4, max_characters=5_000, max_quarantined=1)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000")
SHOWN_TO_THE_MODEL = ("prompt", "completion", "chosen", "rejected", "question")
Mutation = Callable[[random.Random, Row], Row]


class Hostile:
    """An object nothing can be asked of."""

    def __repr__(self):
        raise RuntimeError("no name")

    __str__ = __len__ = __bool__ = __eq__ = __repr__
    __hash__ = None


def noise(rng: random.Random, mode: str = "RGB", size: tuple[int, int] | None = None):
    width, height = size or (rng.randint(1, 40), rng.randint(1, 40))
    bands = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(
        0, 256, (height, width, bands), dtype=np.uint8
    )
    return Image.fromarray(pixels.squeeze(2) if bands == 1 else pixels, mode)


def good_picture(rng: random.Random) -> bytes:
    format = rng.choice(FORMATS)
    return encoded(noise(rng, "RGB" if format == "JPEG" else rng.choice(["RGB", "L"])), format)


def good_row(rng: random.Random, kind: RowKind, number: int) -> Row:
    images = [good_picture(rng) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    row_id, about = f"made/{number}", {"source": "made", "number": number}
    if kind is RowKind.SFT:
        return sft_row(row_id, images, f"Which number is {number}?", "this one", **about)
    if kind is RowKind.PREFERENCE:
        return preference_row(row_id, images, f"What is {number}?", "good", "bad", **about)
    about |= {"benchmark": "made", "split": "test"}
    return evaluation_row(row_id, images, f"What is {number}?", ["one", "two"], **about)


def truncated(rng: random.Random, row: Row) -> Row:
    data = good_picture(rng)
    return row | {"images": [data[: rng.randrange(len(data))]]}


def bits_flipped(rng: random.Random, row: Row) -> Row:
    data = bytearray(good_picture(rng))
    for _ in range(rng.choice([1, 1, 3, 20])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return row | {"images": [bytes(data)]}


def spliced(rng: random.Random, row: Row) -> Row:
    one, two = good_picture(rng), good_picture(rng)
    cut = rng.randrange(len(one))
    return row | {"images": [one[:cut] + two[rng.randrange(len(two)) :]]}


def too_many_pixels(rng: random.Random, row: Row) -> Row:
    sides = rng.choice([(201, 200), (65_000, 65_000), (2**31 - 1, 2), (30_000, 9_000)])
    data = bomb(*sides) if rng.random() < 0.7 else encoded(noise(rng, "L", (201, 200)))
    return row | {"images": [data]}


def odd_picture(rng: random.Random, row: Row) -> Row:
    sixteen = Image.fromarray(np.full((5, 5), rng.randrange(65_536), np.uint16))
    animated = {"save_all": True, "append_images": [Image.new("RGB", (5, 5), "red")]}
    made = rng.choice(
        [
            lambda: encoded(noise(rng, "RGBA"), rng.choice(["PNG", "WEBP", "TIFF"])),
            lambda: encoded(noise(rng).convert("CMYK"), rng.choice(["JPEG", "TIFF"])),
            lambda: encoded(noise(rng).convert(rng.choice(["1", "P", "LA"])), "PNG"),
            lambda: encoded(noise(rng).quantize(4), "GIF", transparency=0),
            lambda: encoded(sixteen, rng.choice(["PNG", "TIFF"])),
            lambda: encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
            lambda: encoded(Image.fromarray(np.full((4, 4), 2**30, np.int32)), "TIFF"),
            lambda: encoded(noise(rng).convert("LAB"), "TIFF"),
            lambda: encoded(
                noise(rng, size=(5, 5)), rng.choice(["GIF", "PNG", "WEBP"]), **animated
            ),
            lambda: encoded(noise(rng), "JPEG", exif=b"Exif\0\0" + rng.randbytes(30)),
            lambda: encoded(noise(rng), "PPM"),
            lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            lambda: bomb(0, 5),
            lambda: Image.new("RGB", (0, 5)),
            lambda: noise(rng, "RGBA"),
            lambda: Image.open(io.BytesIO(encoded(noise(rng, size=(30, 30)))[:-30])),
        ]
    )
    return row | {"images": [made()]}


def junk(rng: random.Random):
    deep: list = []
    for _ in range(rng.choice([3, 3_000])):
        deep = [deep]
    return rng.choice(
        [
            *(
                None,
                0,
                -1,
                True,
                float("nan"),
                float("inf"),
                2**80,
                1j,
                "",
                " \n\t",
                b"",
                b"\xff\xfe",
            ),
            *([], {}, (), set(), [None], {"role": 3}, deep, {"a": deep}, object(), int, Hostile()),
            *(
                np.float32("nan"),
                np.arange(3),
                np.array(["user"]),
                np.str_("text"),
                "text",
                "\ud800",
            ),
        ]
    )


def wrong_value(rng: random.Random, row: Row) -> Row:
    return row | {rng.choice(list(row)): junk(rng)}


def junk_in_list(rng: random.Random, row: Row) -> Row:
    column = rng.choice([name for name, value in row.items() if isinstance(value, list)])
    values = [*row[column]]
    values.insert(rng.randint(0, len(values)), junk(rng))
    return row | {column: values}


def junk_in_message(rng: random.Random, row: Row) -> Row:
    columns = [name for name in ("prompt", "completion", "chosen", "rejected") if name in row]
    if not columns:
        return row | {"question": junk(rng)}
    turn = {"role": rng.choice(["user", "assistant"]), "content": "text"}
    turn[rng.choice(["role", "content"])] = junk(rng)
    return row | {rng.choice(columns): [turn]}


def missing_key(rng: random.Random, row: Row) -> Row:
    gone = rng.choice(list(row))
    return {name: value for name, value in row.items() if name != gone}


def odd_text(rng: random.Random, row: Row) -> Row:
    text = rng.choice(
        [
            *("<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>", "<|video_pad|> x"),
            *("<|im_end|>", "<|im_start|>system", "a<|endoftext|>b", "<|imag<|image_pad|>e_pad|>"),
            *("\ud800 lone", "nul \0 inside", b"\xff\xfe".decode("latin1"), "\u202e right to left"),
            *(
                "x" * 6_000,
                "word " * 1_100,
                "\U0001f600" * 50,
                "\x07\x1b[31m",
                "{{7*7}}",
                "<b>&amp;",
            ),
            b"\xff\xfe not utf-8".decode("utf-8", "surrogateescape"),
        ]
    )
    column = rng.choice([name for name in row if name not in ("images", "meta")])
    if not isinstance(row[column], list):
        return row | {column: text}
    last = row[column][-1] if row[column] else text
    values = [*row[column][:-1], last | {"content": text} if isinstance(last, dict) else text]
    return row | {column: values}


def too_many_pictures(rng: random.Random, row: Row) -> Row:
    return row | {"images": [good_picture(rng)] * rng.choice([4, 5, 1_000])}


def wrong_turns(rng: random.Random, row: Row) -> Row:
    columns = [name for name in ("prompt", "completion", "chosen", "rejected") if name in row]
    if not columns:
        return row | {"answers": []}
    roles = rng.choices(["system", "user", "assistant", "tool"], k=rng.randint(0, 3))
    turns = [{"role": role, "content": f"turn {n}"} for n, role in enumerate(roles)]
    return row | {rng.choice(columns): turns}


def broken_meta(rng: random.Random, row: Row) -> Row:
    return row | {"meta": rng.choice(["{", "[1]", "NaN", "null", "[" * 9_000, '{"a": NaN}', "7"])}


def no_row(rng: random.Random, row: Row) -> Row:
    return rng.choice([None, [], "row", 7, Hostile(), [row], {}, {1: 2}, {**row, None: "x"}])


def marked(rng: random.Random, row: Row) -> Row:
    if rng.random() < 0.5:
        return left_out_row(row["id"], "rated too low", source="made")
    return {"id": row["id"], "source": "made", "damaged": junk(rng)}


def untouched(rng: random.Random, row: Row) -> Row:
    return row


MUTATIONS: tuple[Mutation, ...] = (
    *(truncated, bits_flipped, spliced, too_many_pixels, odd_picture, odd_picture),
    *(wrong_value, wrong_value, junk_in_list, junk_in_message, missing_key, odd_text, odd_text),
    *(too_many_pictures, wrong_turns, broken_meta, no_row, marked, untouched),
)

#: Every reason that the mutations must lead to at least once.
REASONS = {
    *("no image data", "undecodable image", "image too large", "animated image"),
    *("image without pixels", "unsupported pixels", "unsupported image format"),
    *("too many images", "text too long"),
    *("wrong type", "wrong roles", "invalid text", "control token in text", "damaged record"),
    *("empty id", "empty source", "empty meta", "empty prompt", "empty completion"),
    *("empty chosen", "empty rejected", "empty question", "empty answers", "empty choices"),
}


def mutated(seed: int, kind: RowKind, number: int) -> Row:
    rng = random.Random(f"{seed}/{number}")
    return rng.choice(MUTATIONS)(rng, good_row(rng, kind, number))


def judge(row: Row, kind: RowKind) -> Checked:
    """Check a row, and hold what is stored of it against the limits."""
    checked = check_row(row, kind, LIMITS)
    json.dumps([checked.id, checked.source, checked.detail], ensure_ascii=False).encode()
    outcomes = [bool(checked.row), bool(checked.reason), bool(checked.left_out)]
    assert outcomes.count(True) == 1, (row, checked)
    if checked.row is None:
        return checked
    texts = json.dumps({**checked.row, "images": None}, ensure_ascii=False).encode().decode()
    assert len(texts) < 2 * LIMITS.max_characters
    assert "\\u0000" not in texts
    shown = json.dumps([checked.row.get(column) for column in SHOWN_TO_THE_MODEL])
    assert not any(mark in shown for mark in ("<|im_start|>", "<|im_end|>", "<|image_pad|>"))
    assert len(checked.row["images"]) == len(checked.row["image_hashes"]) <= LIMITS.max_images
    for stored in checked.row["images"]:
        image = Image.open(io.BytesIO(stored["bytes"]))
        image.load()
        assert image.format in ("PNG", "JPEG")
        assert image.mode in ("RGB", "L")
        assert 0 < image.width * image.height <= LIMITS.max_image_pixels
    return checked


def judged(seed: int, total: int) -> Counter[str]:
    """Counts by outcome of so many rows, a third of each kind."""
    kinds = list(RowKind)
    found: Counter[str] = Counter()
    for number in range(total):
        kind = kinds[number % 3]
        checked = judge(mutated(seed, kind, number), kind)
        found[checked.reason or checked.left_out or "good"] += 1
    assert found.total() == total
    return found


def test_a_thousand_mutated_rows_are_good_or_refused_for_a_reason():
    found = judged(seed=10, total=1_500)  # a sample of the drill below that has every reason
    assert found.keys() >= REASONS
    assert found["good"] > 150
    assert found["rated too low"] > 10
    assert len(found) >= 20
    assert "unexpected content" not in found


@pytest.mark.drill
def test_ten_thousand_mutated_rows_are_good_or_refused_for_a_reason():
    found = judged(seed=0, total=10_000)
    print("\n".join(f"{count:6,} {reason}" for reason, count in found.most_common()))
    assert found.keys() >= REASONS
    assert found["good"] > 1_500
    assert "unexpected content" not in found  # what a programming error would be counted as


@pytest.mark.parametrize("kind", list(RowKind))
def test_a_folder_of_mutated_rows_accounts_for_each(tmp_path, made_source, kind):
    rows = [mutated(2, kind, number) for number in range(300)]
    out = tmp_path / "out"
    manifest = prepare([made_source(rows)], kind, out, data=LIMITS, seed=0)
    dataset, _ = load_prepared(out, kind)
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert len(dataset) + len(lines) == 300
    refused = Counter(line["reason"] for line in lines)
    assert refused == Counter(manifest.quarantined) + Counter(manifest.left_out)
    for row in dataset:
        assert len(row["images"]) == len(row["image_hashes"])
