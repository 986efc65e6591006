"""Pictures of benchmark rows as the page holds them: small copies inside the HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from pathlib import Path

from siqvl.data.manifest import Manifest
from siqvl.data.shards import load_prepared

SIDE = 320  # pixels of the longer side
#: A picture up to this size is kept as it is, if browsers show its format.
KEPT_BYTES = 24_000
_FORMATS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}


def pictures_of(benchmark: Path, ids: Collection[str]) -> dict[str, list[str]]:
    """`data:` URIs of the pictures of these rows of a prepared benchmark."""
    dataset, _ = load_prepared(benchmark, Manifest.read(benchmark).kind, verify=False)
    stored = dataset.select_columns(["id", "images"]).with_format("arrow")
    places = {id: place for place, id in enumerate(dataset["id"]) if id in ids}
    return {
        id: [_inline(image["bytes"]) for image in stored[place]["images"][0].as_py()]
        for id, place in places.items()
    }


def _inline(data: bytes) -> str:
    kind = next((kind for start, kind in _FORMATS.items() if data.startswith(start)), None)
    if kind is None or len(data) > KEPT_BYTES:
        kind, data = "jpeg", _small(data)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _small(data: bytes) -> bytes:
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()
