"""Pictures: what is kept, what is made upright and RGB, and what is refused before decoding."""

import io
import struct
import zlib

import pytest
from PIL import Image

from siqvl.data.images import BadRow, stored_image

LIMIT = 10_000


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def noise(size=(20, 10), mode="RGB") -> Image.Image:
    return Image.effect_noise(size, 80).convert(mode)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_an_upright_rgb_picture_is_kept_byte_for_byte(format):
    data = encoded(noise(), format)
    stored = stored_image(data, LIMIT)
    assert (stored.data, stored.width, stored.height) == (data, 20, 10)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "I;16"])
def test_other_modes_become_rgb(mode):
    format = "JPEG" if mode == "CMYK" else "PNG"
    data = stored_image(encoded(noise().convert("L").convert(mode), format), LIMIT).data
    assert decoded(data).mode == "RGB"


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


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than it holds."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


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
    ],
    ids=range(13),
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
