"""One evaluation, or one sampling of pairs, by the build that PYTHONPATH names; prints its figures.

`benchmarks/generation.py` starts it, so it asks nothing of siqvl that a build lacks.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import resource
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any


def main(what: str, recipe: str, checkpoint: str, data: str, out: str) -> None:
    from siqvl.recipe import Recipe

    work = {"evaluate": evaluate, "sample": sample}[what]
    fresh = {"features_dir": str(Path(out).with_name("features"))}  # nothing is there beforehand
    loaded = Recipe.load(recipe).model_copy(update=fresh)
    print(json.dumps(work(loaded, Path(checkpoint), Path(data), Path(out))))


def evaluate(recipe: Any, checkpoint: Path, data: Path, out: Path) -> dict[str, Any]:
    """Scores a checkpoint on all its benchmarks, from its loading to the report."""
    import pyarrow.parquet as pq

    from siqvl.evaluation.evaluate import evaluate

    run, _ = timed(lambda: evaluate(recipe, checkpoint=checkpoint, data=data, out=out))
    table = pq.read_table(out / "predictions.parquet")
    names = [
        name for name in ("benchmark", "player", "id", "generation") if name in table.schema.names
    ]
    rows = sorted(json.dumps(row, sort_keys=True) for row in table.select(names).to_pylist())
    return run | {"answers": table.num_rows, "texts": digests(rows)}


def sample(recipe: Any, checkpoint: Path, data: Path, out: Path) -> dict[str, Any]:
    """Draws the completions of `stages.dpo.sampled`, from the loading of the model on."""
    from PIL import Image

    from siqvl.data import sources
    from siqvl.data.schema import RowKind

    settings = recipe.stages.dpo.sampled
    rows = []
    for row in sources.rows(settings.source, RowKind.EVALUATION, recipe.seed):
        rows.append({**row, "images": [in_memory(image, Image) for image in row["images"]]})
    draw, load = sampling()

    def drawn() -> list[Any]:
        model, processor = load(checkpoint, recipe)
        found, left = [], iter(rows)
        together = settings.batch_size // settings.samples * 16
        while some := list(islice(left, together)):
            opened = [
                {**row, "images": [Image.open(io.BytesIO(one)) for one in row["images"]]}
                for row in some
            ]
            nothing: Callable[[int], None] = lambda count: None  # noqa: E731
            found += draw(model, processor, opened, settings, seed=recipe.seed, progress=nothing)
        return found

    run, found = timed(drawn)
    texts = [one.text for completions in found for one in completions]
    return run | {"answers": len(texts), "texts": digests(texts)}


def sampling() -> tuple[Any, Any]:
    """What draws and what loads, where this build or that of 093dab5 keeps it."""
    try:
        load = importlib.import_module("siqvl.generation.completions").load_to_answer
        draw = importlib.import_module("siqvl.generation.sampling").sample
        return draw, lambda checkpoint, recipe: load(checkpoint, recipe.model.attention)
    except ImportError:
        draw = importlib.import_module("siqvl.preferences.sampling").sample
        return draw, importlib.import_module("siqvl.evaluation.evaluate")._load


def in_memory(image: Any, pil: Any) -> bytes:
    if isinstance(image, bytes):
        return image
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def timed(work: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    import torch  # so that its import is in neither side's time

    start, used = time.perf_counter(), cpu_seconds()
    result = work()
    figures = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": cpu_seconds() - used,
        "threads": torch.get_num_threads(),
    }
    return figures, result


def cpu_seconds() -> float:
    """Of this process and those it started and waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def digests(texts: list[str]) -> list[str]:
    """Eight digits a text: enough to count those that differ."""
    return [hashlib.sha256(text.encode()).hexdigest()[:8] for text in texts]


if __name__ == "__main__":
    main(*sys.argv[1:])
