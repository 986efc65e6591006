"""A picture's pixels without storing it: those of the file that would be stored, in less memory."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siqvl.data.preparation import images
from siqvl.data.preparation.checks import check_prompt
from siqvl.data.preparation.images import BadRow, stored_image, stored_pixels
from siqvl.data.schema import message
from siqvl.recipe import DataPrep
from tests.data.made_pictures import bomb, encoded

LIMIT = 1_000_000
NOISE = np.random.default_rng(0).integers(0, 256, (601, 53, 4), dtype=np.uint8)
RGBA = Image.fromarray(NOISE)
RGB = RGBA.convert("RGB")
TURNED = Image.Exif()
TURNED[0x0112] = 6
FILES: dict[str, bytes] = {
    "PNG": encoded(RGB),
    "RGBA": encoded(RGBA),
    "LA": encoded(RGBA.convert("LA")),
    "palette": encoded(RGB.quantize(16), transparency=3),
    "palette, several": encoded(RGB.quantize(16), transparency=bytes(range(0, 256, 16))),
    "one color": encoded(RGB, transparency=tuple(NOISE[0, 0, :3].tolist())),
    "grey, one": encoded(RGB.convert("L"), transparency=7),
    "one bit": encoded(RGB.convert("1")),
    "16 bits": encoded(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 250)),
    "JPEG": encoded(RGB, "JPEG"),
    "grey JPEG": encoded(RGB.convert("L"), "JPEG"),
    "CMYK JPEG": encoded(RGB.convert("CMYK"), "JPEG"),
    "turned JPEG": encoded(RGB, "JPEG", exif=TURNED),
    "turned PNG": encoded(RGBA, exif=TURNED),
    "WEBP": encoded(RGBA, "WEBP", lossless=True),
    "TIFF": encoded(RGBA, "TIFF"),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_pixels_are_those_that_would_be_stored(data: bytes) -> None:
    found = stored_pixels(data, LIMIT)
    stored = Image.open(io.BytesIO(stored_image(data, LIMIT).data)).convert("RGB")
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), np.asarray(stored))


@pytest.mark.parametrize("name", ["RGBA", "LA", "palette", "palette, several", "one color"])
def test_white_shows_through(name: str) -> None:
    """As where the whole picture is put on white at once, whatever the size of a band."""
    with Image.open(io.BytesIO(FILES[name])) as opened:
        whole = opened.convert("RGBA")
    white = Image.new("RGBA", whole.size, "white")
    expected = np.asarray(Image.alpha_composite(white, whole).convert("RGB"))
    assert images.BAND < whole.height < 3 * images.BAND
    assert np.array_equal(np.asarray(stored_pixels(FILES[name], LIMIT)), expected)
    assert (expected == 255).all(axis=-1).any() or name in ("RGBA", "LA")


@pytest.mark.parametrize("data", [b"", b"import os", FILES["PNG"][:500], bomb(2_000, 501)])
def test_what_is_refused_is_refused_alike(data: bytes) -> None:
    with pytest.raises(BadRow) as one:
        stored_image(data, LIMIT)
    with pytest.raises(BadRow) as other:
        stored_pixels(data, LIMIT)
    assert other.value.args == one.value.args


ASK = [message("user", "what is it?")]


@pytest.mark.parametrize(
    ("messages", "pictures", "reason"),
    [
        ([], 0, "empty messages"),
        ([message("assistant", "a")], 0, "wrong roles"),
        ([*ASK, message("system", "a"), *ASK], 0, "wrong roles"),
        ([message("user", "<image>")], 2, "marks and pictures differ"),
        ([message("user", "a<|im_start|>")], 0, "control token in text"),
        ([message("user", "x" * 31)], 0, "text too long"),
        (ASK, 3, "too many images"),
        ([{"role": "user", "content": 1}], 0, "wrong type"),
    ],
)
def test_a_conversation_that_would_be_quarantined_is_not_answered(
    messages: list[Any], pictures: int, reason: str
) -> None:
    with pytest.raises(BadRow) as caught:
        check_prompt(messages, pictures, DataPrep(max_characters=30, max_images=2))
    assert caught.value.reason == reason


def test_a_good_conversation_comes_back_as_it_would_be_stored() -> None:
    said = [message("system", "Be brief."), message("user", "cafe\u0301 <|image_pad|>")]
    assert check_prompt(said, 0, DataPrep()) == [
        message("system", "Be brief."),
        message("user", "caf\u00e9 <| image_pad|>"),
    ]
