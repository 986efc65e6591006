"""Pictures: what is kept, what is made upright and RGB, and what is refused before decoding."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from siqvl.data.preparation.images import BadRow, stored_image
from tests.data.made_pictures import bomb, encoded

LIMIT = 10_000


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def noise(size=(20, 10), mode="RGB") -> Image.Image:
    return Image.effect_noise(size, 80).convert(mode)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_an_upright_rgb_picture_is_kept_byte_for_byte(format):
    data = encoded(noise(), format)
    stored = stored_image(data, LIMIT)
    assert (stored.data, stored.width, stored.height) == (data, 20, 10)


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "CMYK", "I;16"])
def test_other_modes_become_rgb(mode):
    format = "JPEG" if mode == "CMYK" else "PNG"
    grey = noise().convert("L").convert(mode)
    assert decoded(stored_image(encoded(grey, format), LIMIT).data).mode == "RGB"


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(format):
    values = np.array([[0, 128, 129, 257, 25_700, 32_768, 65_406, 65_407, 65_535]], np.uint16)
    stored = decoded(stored_image(encoded(Image.fromarray(values), format), LIMIT).data)
    assert np.asarray(stored)[0, :, 0].tolist() == [0, 0, 1, 1, 100, 128, 254, 255, 255]


@pytest.mark.parametrize("byteorder", ["<u2", ">u2"])
def test_the_byte_order_of_sixteen_bits_does_not_matter(byteorder):
    values = np.full((4, 4), 25_700, byteorder)
    mode = "I;16" if byteorder == "<u2" else "I;16B"
    image = Image.frombytes(mode, (4, 4), values.tobytes())
    stored = decoded(stored_image(encoded(image, "TIFF"), LIMIT).data)
    assert stored.getpixel((0, 0)) == (100, 100, 100)


@pytest.mark.parametrize("numbers", [np.float32("nan"), np.float32(0.5), np.int32(70_000)])
def test_numbers_without_a_common_scale_are_refused(numbers):
    image = Image.fromarray(np.full((4, 4), numbers))
    with pytest.raises(BadRow) as error:
        stored_image(encoded(image, "TIFF"), LIMIT)
    assert error.value.reason == "unsupported pixels"


def test_the_inverted_inks_of_adobe_come_out_in_their_colours():
    # Pillow writes CMYK JPEGs as Photoshop does: inverted, with an Adobe marker
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert b"Adobe" in data
    red, green, blue = decoded(stored_image(data, LIMIT).data).getpixel((8, 8))
    assert red > 240 > 15 > max(green, blue)


def test_a_transparent_palette_entry_becomes_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 255, 200, 0, 0])
    image.putpixel((0, 0), 0)
    stored = decoded(stored_image(encoded(image, "PNG", transparency=0), LIMIT).data)
    assert stored.getpixel((0, 0)) == (255, 255, 255)
    assert stored.getpixel((1, 1)) == (200, 0, 0)


def test_grey_with_half_transparency_is_mixed_with_white():
    stored = decoded(stored_image(encoded(Image.new("LA", (4, 4), (0, 128))), LIMIT).data)
    assert stored.getpixel((0, 0)) == (127, 127, 127)


def test_a_picture_of_several_cameras_is_its_first():
    first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    stored = decoded(stored_image(data, LIMIT).data)
    assert stored.format == "JPEG"
    assert stored.getpixel((8, 8))[0] > 240


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_equal_pixels_have_equal_hashes_in_any_format(format):
    image = noise((20, 10)).quantize(200).convert("RGB")
    expected = hashlib.sha256(b"20x10\n" + image.tobytes()).hexdigest()
    options = {"lossless": True} if format == "WEBP" else {}
    assert stored_image(encoded(image, format, **options), LIMIT).hash == expected
    turned = image.transpose(Image.Transpose.ROTATE_90)
    assert stored_image(encoded(turned, format, **options), LIMIT).hash != expected


@pytest.mark.parametrize(
    "data", [encoded(noise(), "JPEG"), encoded(noise().convert("CMYK"), "JPEG")]
)
def test_the_hash_is_of_what_a_reader_of_the_stored_bytes_decodes(data):
    stored = stored_image(data, LIMIT)
    pixels = decoded(stored.data).convert("RGB").tobytes()
    assert stored.hash == hashlib.sha256(b"20x10\n" + pixels).hexdigest()


@pytest.mark.parametrize("format", ["WEBP", "BMP", "GIF", "TIFF"])
def test_other_formats_become_png(format):
    data = stored_image(encoded(noise(), format), LIMIT).data
    assert decoded(data).format == "PNG"
    assert decoded(data).mode == "RGB"


def test_transparency_becomes_white():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    data = stored_image(encoded(image), LIMIT).data
    assert decoded(data).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(format):
    image = Image.new("RGB", (20, 10), "white")
    image.paste("black", (0, 0, 10, 10))  # the left half; upright it is the top half
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    stored = stored_image(encoded(image, format, exif=exif), LIMIT)
    upright = decoded(stored.data)
    assert (stored.width, stored.height) == upright.size == (10, 20)
    assert upright.getpixel((5, 3))[0] < 50 < 200 < upright.getpixel((5, 16))[0]
    assert not dict(upright.getexif())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no image data"),
        (b"", "no image data"),
        ("missing.png", "no image data"),
        (b"not a picture", "undecodable image"),
        (encoded(noise())[:-40], "undecodable image"),
        (encoded(noise(), "JPEG")[:-80], "undecodable image"),
        (encoded(noise((101, 100))), "image too large"),
        (bomb(60_000, 60_000), "image too large"),
        (bomb(12_000, 12_000), "image too large"),
        (encoded(noise(), "GIF", save_all=True, append_images=[noise()]), "animated image"),
        (encoded(noise(), "PNG", save_all=True, append_images=[noise()]), "animated image"),
        (Image.new("RGB", (0, 5)), "image without pixels"),
        (Image.new("RGB", (101, 100)), "image too large"),
        (decoded(encoded(noise((30, 30)))[:-40]), "undecodable image"),
        (encoded(noise(), "PPM"), "undecodable image"),
    ],
    ids=range(15),
)
def test_bad_pictures_are_refused(value, reason):
    with pytest.raises(BadRow) as error:
        stored_image(value, LIMIT)
    assert error.value.reason == reason


def test_a_bomb_is_never_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(BadRow, match="12000x12000 pixels, 10000 are allowed"):
        stored_image(bomb(12_000, 12_000), LIMIT)


def test_a_flipped_bit_is_noticed():
    data = bytearray(encoded(noise()))
    data[len(data) // 2] ^= 1
    with pytest.raises(BadRow):
        stored_image(bytes(data), LIMIT)
