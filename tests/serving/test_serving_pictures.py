"""Pictures of requests: as small as the tower reads, and bit for bit what it reads."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import SiglipImageProcessor

from siqvl.data.preparation.images import stored_image
from siqvl.errors import UserError
from siqvl.serving.picture_decoding import LARGE, decoded, pixels_of
from tests.data.made_pictures import bomb, encoded

NOISE = np.random.default_rng(0).integers(0, 256, (61, 83, 4), dtype=np.uint8)
RGB, RGBA = Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE)
TURNED = Image.Exif()
TURNED[0x0112] = 6
FILES = {
    "PNG": encoded(RGB),
    "transparent": encoded(RGBA),
    "palette": encoded(RGB.quantize(16)),
    "grey": encoded(RGB.convert("L")),
    "JPEG": encoded(RGB, "JPEG"),
    "turned JPEG": encoded(RGB, "JPEG", exif=TURNED),
    "WEBP": encoded(RGB, "WEBP"),
    "BMP": encoded(RGB, "BMP"),
    "narrow": encoded(RGB.resize((300, 2))),
    "small": encoded(RGB.resize((3, 3))),
}


@pytest.fixture(params=[(16, 2), (64, 3)], ids=["bilinear", "bicubic"])
def image_processor(request: pytest.FixtureRequest) -> Any:
    side, resample = request.param
    return SiglipImageProcessor(size={"height": side, "width": side}, resample=resample)


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_the_tower_sees_the_pixels_of_the_whole_picture(data: bytes, image_processor: Any) -> None:
    found = decoded(data, image_processor, 10_000)
    # as rows of requests, and of training, were read before anything was made smaller
    whole = Image.open(io.BytesIO(stored_image(data, 10_000).data)).convert("RGB")
    expected = image_processor(images=[whole], return_tensors="np")["pixel_values"]
    size = image_processor.size
    assert found.size == (size["width"], size["height"])
    assert found.mode == "RGB"
    again = image_processor(images=[found], return_tensors="np")["pixel_values"]
    assert np.array_equal(again, expected)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"import os", "the picture cannot be decoded; send one of PNG, JPEG, WEBP"),
        (b"", "the picture cannot be decoded; send one of PNG, JPEG, WEBP"),
        (FILES["PNG"][:200], "the picture cannot be decoded"),
        (bomb(10_000, 5_001), "image too large: 10000x5001 pixels, 10000 are allowed"),
        (bomb(100_000, 100_000), "image too large: "),
        (
            encoded(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90, expand=False)]),
            "animated image: GIF with several frames",
        ),
    ],
    ids=["script", "nothing", "half", "large", "bomb", "animated"],
)
def test_what_is_no_picture_is_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        decoded(data, SiglipImageProcessor(), 10_000)
    assert caught.value.message.startswith(sentence)
    assert "\n" not in caught.value.message


def test_pixels_are_counted_before_any_is_decoded() -> None:
    assert pixels_of(FILES["PNG"]) == 61 * 83
    assert pixels_of(bomb(10_000, 5_001)) == 50_010_000 > LARGE
    assert pixels_of(b"import os") == 0
