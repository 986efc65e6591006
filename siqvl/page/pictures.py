"""Pictures as a page holds them: small copies inside the HTML."""

from __future__ import annotations

import base64
import io

SIDE = 320  # pixels of the longer side
#: A picture up to this size is kept as it is, if browsers show its format.
KEPT_BYTES = 24_000
_FORMATS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}


def data_uri(data: bytes, side: int = SIDE, kept_bytes: int = KEPT_BYTES) -> str:
    """A picture file as a `data:` URI, which a page shows without fetching it.

    Args:
        side: pixels that the longer side of a smaller copy has.
        kept_bytes: files up to this size are not made smaller.
    """
    kind = next((kind for start, kind in _FORMATS.items() if data.startswith(start)), None)
    if kind is None or len(data) > kept_bytes:
        kind, data = "jpeg", _smaller(data, side)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _smaller(data: bytes, side: int) -> bytes:
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
