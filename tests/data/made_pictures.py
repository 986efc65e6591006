"""Encoded pictures of one colour."""

import io

from PIL import Image


def picture(color: str = "red", size: tuple[int, int] = (8, 8), format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, color).save(stream, format)
    return stream.getvalue()
