"""Pictures: what is kept, what is made upright and RGB, and what is refused before decoding."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from siqvl.data.preparation.checks import check_row
from siqvl.data.preparation.images import FORMATS, BadRow, stored_image
from siqvl.data.preparation.picture_formats import foreign_format
from siqvl.data.schema import RowKind, sft_row
from siqvl.recipe import DataPrep
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


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG2000"])
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


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000"])
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


@pytest.mark.parametrize("format", ["WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000"])
def test_other_formats_become_png(format):
    data = stored_image(encoded(noise(), format), LIMIT).data
    assert decoded(data).format == "PNG"
    assert decoded(data).mode == "RGB"


def test_transparency_becomes_white():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    data = stored_image(encoded(image), LIMIT).data
    assert decoded(data).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "AVIF"])
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
        (encoded(noise(), "AVIF")[:-40], "undecodable image"),
        (encoded(noise(), "JPEG2000")[:-40], "undecodable image"),
        (encoded(noise())[:-40], "undecodable image"),
        (encoded(noise(), "JPEG")[:-80], "undecodable image"),
        (encoded(noise((101, 100))), "image too large"),
        (bomb(60_000, 60_000), "image too large"),
        (bomb(12_000, 12_000), "image too large"),
        (encoded(noise(), "GIF", save_all=True, append_images=[noise()]), "animated image"),
        (encoded(noise(), "PNG", save_all=True, append_images=[noise()]), "animated image"),
        (encoded(noise(), "AVIF", save_all=True, append_images=[noise()]), "animated image"),
        (encoded(noise((101, 100)), "AVIF"), "image too large"),
        (encoded(noise((101, 100)), "JPEG2000"), "image too large"),
        (Image.new("RGB", (0, 5)), "image without pixels"),
        (Image.new("RGB", (101, 100)), "image too large"),
        (decoded(encoded(noise((30, 30)))[:-40]), "undecodable image"),
        (encoded(noise(), "PPM"), "unsupported image format"),
    ],
    ids=range(20),
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


@pytest.mark.parametrize("options", [{}, {"quality": 30}, {"subsampling": "4:2:0"}])
def test_of_a_lossy_avif_all_that_was_decoded_is_stored(options):
    data = encoded(noise(), "AVIF", **options)
    stored = stored_image(data, LIMIT)
    assert decoded(stored.data).tobytes() == decoded(data).convert("RGB").tobytes()


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000"])
def test_transparency_of_newer_formats_becomes_white(format):
    options = {"quality": 100, "subsampling": "4:4:4"} if format == "AVIF" else {}
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert decoded(stored_image(encoded(image, format, **options), LIMIT).data).getpixel(
        (8, 8)
    ) == (255, 255, 255)


def test_a_codestream_without_a_container_is_read():
    image = noise()
    data = encoded(image, "JPEG2000", no_jp2=True)
    assert decoded(stored_image(data, LIMIT).data).tobytes() == image.tobytes()


#: What Pillow writes and we do not read; formats without a mark of their own aside.
WRITTEN = {
    **{name: name for name in ("BLP", "DDS", "DIB", "EPS", "ICNS", "ICO", "IM", "MSP", "PCX")},
    **{name: name for name in ("PDF", "PPM", "QOI", "SGI", "TGA", "XBM")},
}
MODES = {"MSP": "1", "XBM": "1", "BLP": "P"}
MADE = {
    "CUR": b"\x00\x00\x02\x00\x01\x00" + bytes(40),
    "PDF": b"%PDF-1.7\n",
    "PSD": b"8BPS\x00\x01" + bytes(40),
    "JPEG XL": b"\xff\x0a" + bytes(40),
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(40),
    "EMF": b"\x01\x00\x00\x00" + bytes(36) + b" EMF" + bytes(40),
    "SVG": b'\n<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    "HEIC": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40),
    "MP4": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(40),
    "DICOM": bytes(128) + b"DICM" + bytes(40),
    "ZIP": b"PK\x03\x04" + bytes(40),
    "gzip": b"\x1f\x8b\x08" + bytes(40),
}
MIF1 = b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic" + bytes(40)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *((WRITTEN[one], lambda one=one: encoded(noise((16, 16), MODES.get(one, "RGB")), one))
          for one in WRITTEN),
        *((name, lambda data=data: data) for name, data in MADE.items()),
        ("HEIC", lambda: MIF1),
    ],
)  # fmt: skip
def test_other_formats_are_refused_by_name(name, data, monkeypatch):
    """And nothing but our own decoders is ever asked: those of EPS or WMF run other programs."""
    content = data()
    original = Image.open

    def opened(stream, mode="r", formats=None):
        assert formats == FORMATS
        return original(stream, mode, formats)

    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(BadRow) as error:
        stored_image(content, LIMIT)
    assert error.value.reason == "unsupported image format"
    assert error.value.detail == f"{name} is not read; store it as PNG or JPEG"


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_that_is_read_is_taken_for_another(format):
    assert foreign_format(encoded(noise(), format)) is None


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"<!DOCTYPE html>\n<title>404</title>", "an HTML page in place of the picture"),
        (b"\xef\xbb\xbf <!-- x --> <HTML lang='en'>", "an HTML page in place of the picture"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML in place of"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer in"),
        (b"iVBORw0KGgoAAAANSUhEUgAA", "base64 text in place of the picture: decode it"),
        (b"data:image/png;base64,iVBORw0KGgo", "base64 text in place of the picture"),
        (b"", "the picture is empty: it has no bytes"),
    ],
)
def test_what_stands_in_place_of_a_picture_is_called_that(data, detail):
    with pytest.raises(BadRow) as error:
        stored_image(data, LIMIT)
    assert error.value.reason == "no image data"
    assert error.value.detail.startswith(detail)


class Thing:
    def __len__(self):
        raise RuntimeError(f"asked {self!r}")


@pytest.mark.parametrize(
    "change",
    [
        {"images": [b"not a picture"]},
        {"images": [encoded(noise())[:30]]},
        {"images": [encoded(noise(), "JPEG")[:60]]},
        {"images": [Thing()]},
        {"images": Thing()},
        {"prompt": [Image.new("RGB", (8, 8))]},
        {"prompt": [{"role": "user", "content": Thing()}]},
        {"prompt": Thing()},
        {"id": object()},
        {"source": io.BytesIO()},
    ],
    ids=range(10),
)
def test_no_reason_holds_an_address_in_memory(change):
    row = sft_row("a", [encoded(noise())], "What?", "this", source="s") | change
    checked = check_row(row, RowKind.SFT, DataPrep())
    assert checked.reason
    for text in (checked.id, checked.source, checked.reason, checked.detail):
        assert "0x7" not in text
        assert " at 0x" not in text
