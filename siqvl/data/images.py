"""Check one picture of a row, and bring it into the form in which it is stored."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
ORIENTATION = 0x0112  # EXIF tag; 1 means upright


class BadRow(Exception):
    """A row that goes into quarantine: a reason to count by, and what exactly was wrong."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def stored_image(value: Any, max_pixels: int) -> tuple[bytes, int, int]:
    """The PNG or JPEG bytes to store, with width and height.

    An upright RGB or greyscale JPEG and an RGB PNG are kept byte for byte; anything else is turned
    upright, put on white where it is transparent, and encoded again as RGB.

    Raises:
        BadRow: no picture, too large to decode, damaged, animated, or without pixels.
    """
    from PIL import Image

    if isinstance(value, Image.Image):
        return _encoded(value, "PNG", max_pixels)
    if not isinstance(value, bytes | bytearray | memoryview) or not value:
        what = f"no file {value}" if isinstance(value, str) else f"got {type(value).__name__}"
        raise BadRow("no image data", f"{what}, expected encoded bytes"[:300])
    data = bytes(value)
    image = _opened(data, max_pixels)
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise BadRow("animated image", f"{image.format} with several frames")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data), formats=FORMATS).verify()  # checksums; unusable afterwards
            image.load()
            orientation = image.getexif().get(ORIENTATION, 1)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct…
        raise BadRow("undecodable image", _one_line(error)) from None
    if orientation == 1 and (
        (image.format == "JPEG" and image.mode in ("RGB", "L"))
        or (image.format == "PNG" and image.mode == "RGB" and "transparency" not in image.info)
    ):
        return data, image.width, image.height
    return _encoded(image, "JPEG" if image.format in ("JPEG", "MPO") else "PNG", max_pixels)


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header alone, and look at the size before a pixel is decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadRow("image too large", _one_line(error)) from None
    except Exception as error:
        raise BadRow("undecodable image", _one_line(error)) from None
    _check_size(image, max_pixels)
    return image


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if not image.width or not image.height:
        raise BadRow("image without pixels", f"{image.width}x{image.height}")
    if image.width * image.height > max_pixels:
        raise BadRow(
            "image too large", f"{image.width}x{image.height} pixels, {max_pixels} are allowed"
        )


def _encoded(image: Image.Image, format: str, max_pixels: int) -> tuple[bytes, int, int]:
    from PIL import Image, ImageOps

    _check_size(image, max_pixels)
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    stream = io.BytesIO()
    # no EXIF, no text chunks: they may hold private data
    image.save(stream, format, **({"quality": 95} if format == "JPEG" else {}))
    return stream.getvalue(), image.width, image.height


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
