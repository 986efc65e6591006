"""Check one picture of a row, and bring it into the form in which it is stored."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from siqvl.data.preparation.picture_formats import why_no_picture
from siqvl.errors import one_line

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000")
ORIENTATION = 0x0112  # EXIF tag; 1 means upright
THUMBNAIL = 8  # pixels a side
BAND = 256  # rows that are put on white at a time
PACKED = 2**20  # bytes of pixels that Pillow hands over at a time, in place of 64 KiB


class BadRow(Exception):
    """A row that goes into quarantine: a reason to count by, and what exactly was wrong."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class StoredImage:
    """A picture as it is stored, and what tells it from others."""

    data: bytes  # PNG or JPEG
    width: int
    height: int
    hash: str  # pixel_hash of what `data` decodes to
    thumbnail: bytes  # 8 x 8 x RGB, 192 bytes, each the mean of what it covers


def stored_image(value: Any, max_pixels: int) -> StoredImage:
    """Returns the picture to store.

    An upright RGB or greyscale JPEG and an RGB PNG are kept byte for byte; anything else is turned
    upright, put on white where it is transparent, and encoded again as RGB: as PNG, which loses
    nothing that was decoded, or what was JPEG as JPEG. ICC profiles are not applied (transformers'
    image processors do not either).

    Raises:
        BadRow: no picture, of another format, too large to decode, damaged, animated, without
            pixels, or of numbers that have no common scale.
    """
    from PIL import Image

    if isinstance(value, Image.Image):
        return _encoded(value, "PNG", max_pixels)
    return _stored_file(_file(value), max_pixels)


def stored_pixels(value: Any, max_pixels: int) -> Image.Image:
    """Returns the RGB pixels of what `stored_image` stores of a file, decoded once.

    Raises:
        BadRow: as `stored_image`.
    """
    from PIL import Image

    data = _file(value)
    image, is_kept = _decoded(data, max_pixels)
    if is_kept:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.format in ("JPEG", "MPO"):  # which loses when it is encoded again
        return Image.open(io.BytesIO(_encoded(image, "JPEG", max_pixels).data)).convert("RGB")
    try:
        with warnings.catch_warnings(action="ignore"):
            return upright_rgb(image)
    except BadRow:
        raise
    except Exception as error:  # a mode without conversion
        raise BadRow("undecodable image", one_line(error)) from None


def _file(value: Any) -> bytes:
    """Raises BadRow where a picture is not the bytes of a file."""
    if not isinstance(value, bytes | bytearray | memoryview):
        what = f"no picture at {value}" if isinstance(value, str) else f"got {type(value).__name__}"
        raise BadRow("no image data", f"{what}, expected encoded bytes"[:300])
    if not value:
        raise BadRow("no image data", "the picture is empty: it has no bytes")
    return bytes(value)


@lru_cache(maxsize=2)  # a picture's questions often follow one another
def _stored_file(data: bytes, max_pixels: int) -> StoredImage:
    image, is_kept = _decoded(data, max_pixels)
    if is_kept:
        return _stored(data, image if image.mode == "RGB" else image.convert("RGB"))
    return _encoded(image, "JPEG" if image.format in ("JPEG", "MPO") else "PNG", max_pixels)


def _decoded(data: bytes, max_pixels: int) -> tuple[Image.Image, bool]:
    """A file's picture, decoded, and whether the file is kept as it is."""
    from PIL import Image

    image = _opened(data, max_pixels)
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise BadRow("animated image", f"{image.format} with several frames")
    try:
        with warnings.catch_warnings(action="ignore"):
            if image.format == "PNG":  # its checksums; Pillow verifies no other format
                Image.open(io.BytesIO(data), formats=FORMATS).verify()  # unusable afterwards
            image.load()
            orientation = image.getexif().get(ORIENTATION, 1)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct…
        raise BadRow("undecodable image", one_line(error)) from None
    return image, orientation == 1 and (
        (image.format == "JPEG" and image.mode in ("RGB", "L"))
        or (image.format == "PNG" and image.mode == "RGB" and "transparency" not in image.info)
    )


def pixel_hash(image: Image.Image) -> str:
    """Digests (sha256, hex) size and RGB pixels: equal for equal pixels in any file format."""
    from PIL import ImageFile

    # most pictures come in one part then: parts are joined, which costs as much as packing them
    ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, PACKED)
    digest = hashlib.sha256(f"{image.width}x{image.height}\n".encode())
    digest.update((image if image.mode == "RGB" else image.convert("RGB")).tobytes())
    return digest.hexdigest()


def _stored(data: bytes, image: Image.Image) -> StoredImage:
    from PIL.Image import Resampling

    small = image.resize((THUMBNAIL, THUMBNAIL), Resampling.BOX)
    return StoredImage(data, image.width, image.height, pixel_hash(image), small.tobytes())


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header alone, and look at the size before a pixel is decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadRow("image too large", one_line(error)) from None
    except UnidentifiedImageError:
        unknown = f"no format that is read: it begins with {data[:12]!r}"
        raise BadRow(*why_no_picture(data) or ("undecodable image", unknown)) from None
    except Exception as error:
        raise BadRow("undecodable image", one_line(error)) from None
    _check_size(image, max_pixels)
    return image


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if not image.width or not image.height:
        raise BadRow("image without pixels", f"{image.width}x{image.height}")
    if image.width * image.height > max_pixels:
        raise BadRow(
            "image too large", f"{image.width}x{image.height} pixels, {max_pixels} are allowed"
        )


def _encoded(image: Image.Image, format: str, max_pixels: int) -> StoredImage:
    from PIL import Image

    _check_size(image, max_pixels)
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings(action="ignore"):
            image = upright_rgb(image)
            # no EXIF, no text chunks: they may hold private data
            image.save(stream, format, **({"quality": 95} if format == "JPEG" else {}))
    except BadRow:
        raise
    except Exception as error:  # a lazily read picture that is damaged, a mode without conversion
        raise BadRow("undecodable image", one_line(error)) from None
    data = stream.getvalue()
    # JPEG loses: hash what a reader will decode, not what went in
    return _stored(data, Image.open(io.BytesIO(data)).convert("RGB") if format == "JPEG" else image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turns a picture upright and into RGB, on white where it is transparent.

    Raises:
        BadRow: its numbers have no common scale.
    """
    from PIL import ImageOps

    if image.getexif().get(ORIENTATION, 1) != 1:  # an upright one it would copy
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    elif image.mode in ("I", "F"):
        raise BadRow(
            "unsupported pixels",
            f"mode {image.mode}: 32-bit numbers have no common scale, store them with 8 or 16 bits",
        )
    return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Some rows at a time: a picture of 50 million pixels takes 200 MB in each mode."""
    from PIL import Image

    found = Image.new("RGB", image.size)
    for top in range(0, image.height, BAND):
        box = (0, top, image.width, min(top + BAND, image.height))
        band = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        found.paste(Image.alpha_composite(white, band).convert("RGB"), box)
    return found


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit greyscale scaled to 8 bits (65535 -> 255); Pillow's own conversion clips at 255."""
    from PIL import Image

    values = np.asarray(image).astype(np.uint32)
    grey = ((values + 128) // 257).astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)
