"""Pictures of 49 megapixels, near the most that a row may hold."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE, ROWS = 7_000, 16


def large_pictures(folder: Path, count: int = ROWS) -> list[Path]:
    """Files of coloured blocks, each another: PNG and JPEG in turn."""
    files = []
    random = np.random.default_rng(0)
    for number in range(count):
        blocks = random.integers(0, 256, (SIDE // 100, SIDE // 100, 3), dtype=np.uint8)
        large = Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        kind = ("PNG", "JPEG")[number % 2]
        files.append(folder / f"{number}.{kind.lower()}")
        large.save(files[-1], kind, **({"compress_level": 1} if kind == "PNG" else {}))
    return files
