"""One side of `benchmarks/tracking.py`, in a process of its own with either build on its path.

deliver URI POINTS BAD        seconds until all points, one an entry, are delivered
train URI STEPS SECONDS EACH  a training loop that logs so many points a step, or none: seconds of a
                              unit of its work, and the share of time that it spends in calls
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def deliver(uri: str, points: int, bad: int) -> float:
    """BAD: whether one of them has a name that MLflow refuses."""
    from siqvl.tracking.runs import client

    store = client(uri)
    run_id = store.create_run("0").info.run_id
    now = int(time.time() * 1000)
    content = [["loss", 1 / (step + 1), now + step, step] for step in range(points)]
    if bad:
        content[points // 2][0] = "../loss"
    folder = Path(tempfile.mkdtemp())
    try:
        from siqvl.tracking.outbox import Outbox
    except ImportError:
        return _deliver_old(store, folder, uri, run_id, content)
    from siqvl.tracking.delivery import Delivery

    outbox = Outbox.of_process(folder)
    for point in content:
        outbox.add(uri, run_id, [("metric", point)])
    begin = time.perf_counter()
    Delivery(outbox, outbox.streams()[0], store).run()
    return time.perf_counter() - begin


def _deliver_old(store: Any, folder: Path, uri: str, run_id: str, content: list[Any]) -> float:
    from siqvl.tracking.journal import Journal  # type: ignore[import-not-found,unused-ignore]

    from siqvl.tracking.delivery import deliver as deliver_journal  # type: ignore[attr-defined,unused-ignore]

    journal = Journal.create(folder, uri=uri, run_id=run_id)
    for point in content:
        journal.append("metrics", values=[point])
    begin = time.perf_counter()
    deliver_journal(journal, store)
    return time.perf_counter() - begin


def train(uri: str, steps: int, seconds: float, each: int, *, logs: bool) -> list[float]:
    """A step is as much arithmetic as takes SECONDS when it is measured at first."""
    import torch

    from siqvl.tracking.outbox import OutboxPlace
    from siqvl.tracking.runs import RunLog, client

    run_id = client(uri).create_run("0").info.run_id
    log = RunLog(uri, run_id, OutboxPlace(Path(tempfile.mkdtemp()), 60.0))
    a = torch.randn(512, 512)
    begin = time.perf_counter()
    for _ in range(50):
        a @ a
    times = max(1, round(seconds / ((time.perf_counter() - begin) / 50)))
    log.metrics({"begin": 1.0})
    log.flush()
    inside = 0.0
    begin = time.perf_counter()
    for step in range(steps):
        for _ in range(times):
            a @ a
        if logs:
            called = time.perf_counter()
            log.metrics({f"train/{index}": step / 7 for index in range(each)}, step=step)
            inside += time.perf_counter() - called
    taken = time.perf_counter() - begin
    log.flush()
    return [taken / times, inside / taken]


if __name__ == "__main__":
    side, what, address, *numbers = sys.argv[1:]
    if what == "deliver":
        print(json.dumps(deliver(address, *map(int, numbers))))
    else:
        count, length, at_once = int(numbers[0]), float(numbers[1]), int(numbers[2])
        print(json.dumps(train(address, count, length, at_once, logs=side == "with")))
