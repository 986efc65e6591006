"""Pictures of requests: decoded one after the other, and made as small as the tower reads at once.

A picture of 50 megapixels takes 200 MB while it is decoded, and the tower sees a square of some
hundred pixels of it. So no more than one large picture is whole at a time, in however many threads
they are asked for, and what is kept of it is the square that the image processor makes of it
anyway: the processor leaves a picture of that size as it is.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from typing import Any

import numpy as np
from PIL import Image

from siqvl.data.preparation.images import FORMATS, BadRow, stored_pixels
from siqvl.errors import UserError

#: Pictures of more pixels are decoded one at a time.
LARGE = 2**22
_ALONE = threading.Lock()


def decoded(data: bytes, image_processor: Any, max_pixels: int) -> Image.Image:
    """Decodes a picture file, to what the tower sees of it.

    It is judged, turned upright and brought to RGB as preparation does with a picture to learn
    from, so that a checkpoint reads here what it read there.

    Args:
        data: a file of one of `FORMATS`.
        image_processor: the one of the checkpoint's processor. None: the picture stays whole.
        max_pixels: a picture of more is refused by what its header says, before it is decoded.

    Returns:
        RGB, of the size that the image processor resizes to. The processor's `pixel_values` of it
        are bit for bit those of the whole picture.

    Raises:
        UserError: no picture, of another format, too large, damaged or animated.
    """
    with _ALONE if pixels_of(data) > LARGE else contextlib.nullcontext():
        try:
            whole = stored_pixels(data, max_pixels)
        except BadRow as bad:
            raise UserError(_sentence(bad)) from None
        return whole if image_processor is None else as_seen(whole, image_processor)


def pixels_of(data: bytes) -> int:
    """Counts the pixels that a picture's header promises; 0 for what is no picture."""
    try:
        with warnings.catch_warnings(action="ignore"), _opened(data) as image:
            return image.width * image.height
    except Exception:  # Pillow's readers raise whatever they stumble over; `decoded` says what
        return 0


def as_seen(picture: Image.Image, image_processor: Any) -> Image.Image:
    """Makes an RGB picture as small, or as large, as the image processor does for the tower."""
    size = image_processor.size
    if (
        getattr(image_processor, "backend", None) == "pil"
        and image_processor.do_resize
        and not image_processor.do_center_crop
        and size["height"]
        and size["width"]
    ):
        # What that backend does, without its copies of a large picture on the way.
        picture = picture.resize((size["width"], size["height"]), image_processor.resample)
    pixels = image_processor(
        images=[picture], do_rescale=False, do_normalize=False, return_tensors="np"
    )["pixel_values"][0]
    return Image.fromarray(np.ascontiguousarray(np.moveaxis(np.asarray(pixels), 0, -1)))


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _sentence(bad: BadRow) -> str:
    """What preparation says of a picture, in the words of a request."""
    if bad.reason in ("undecodable image", "no image data"):
        return f"the picture cannot be decoded; send one of {', '.join(FORMATS)}"
    return f"{bad.reason}: {bad.detail}" if bad.detail else bad.reason
