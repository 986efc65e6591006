"""One preparation by whichever build is on the path, today's or an older one: how long it took.

    python benchmarks/prepare_once.py TABLE OUT PROCESSES

Prints JSON: rows, wall and CPU seconds (of all its processes), the manifest's fingerprint. A first,
small preparation is not timed: it imports what one process imports, as in a task that has begun.
Processes that the timed one starts are part of its time.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from importlib import import_module, util
from pathlib import Path


def main(table: str, out: Path, processes: int) -> None:
    """Prepare a table, and print what it took."""
    from siqvl.recipe import DataPrep, Source

    new, old = "siqvl.data.preparation.prepare", "siqvl.data.prepare"
    prepare = import_module(new if util.find_spec(new) else old).prepare
    with tempfile.TemporaryDirectory() as folder:
        few = [Source(kind="table", path=table, max_samples=10)]
        prepare(few, "sft", Path(folder) / "out", data=DataPrep(), seed=0)
    used, start = cpu_seconds(), time.perf_counter()
    source, data = Source(kind="table", path=table), DataPrep(processes=processes)
    manifest = prepare([source], "sft", out, data=data, seed=0)
    figures = {"rows": manifest.rows, "seconds": time.perf_counter() - start}
    figures |= {"cpu_seconds": cpu_seconds() - used, "fingerprint": manifest.fingerprint}
    print(json.dumps(figures))


def cpu_seconds() -> float:
    """What this process and those of its own that have ended have used."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
