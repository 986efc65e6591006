"""Delivery of a journal: its entries go to the store in order, each once.

Nothing keeps a delivery from being cut between the store's answer and the note that it was given.
What is then sent again changes nothing: a point has the time at which it was logged, and a store
has one point of a name, step, time and value; params, tags and files are what they were.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from siqvl.errors import one_line
from siqvl.tracking.journal import Entry, Journal
from siqvl.tracking.offline import create, is_offline, online_id
from siqvl.tracking.store import is_gone, is_refusal

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

#: What MLflow takes in one request, and 1000 in all.
MAX_METRICS, MAX_PARAMS, MAX_TAGS = 800, 100, 100
BATCHED = {"metrics": MAX_METRICS, "params": MAX_PARAMS, "tags": MAX_TAGS}


def deliver(journal: Journal, store: MlflowClient) -> int:
    """Send what a journal holds, and return how many entries that were.

    Raises:
        Exception: the store cannot be reached; what is left stays where it is.
    """
    sent = 0
    while entries := journal.pending():
        run_id = _run_id(journal, store, entries)
        for batch in _batches(entries):
            _send(journal, store, run_id, batch)
            sent += len(batch)
    return sent


class NotYet(Exception):
    """The run of a journal is created by another one, which has not been delivered."""


def _run_id(journal: Journal, store: MlflowClient, entries: list[Entry]) -> str:
    """The run in the store, made first if it is not there."""
    run_id: str = journal.header["run_id"]
    if not is_offline(run_id):
        return run_id
    if journal.online_id is None:
        journal.online_id = online_id(store, run_id)
    if journal.online_id is None and entries[0].kind == "run":
        journal.online_id = create(store, run_id, entries[0].content)
    if journal.online_id is None:
        raise NotYet(f"run {run_id} is not in the store yet")
    return journal.online_id


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Neighbouring entries that go in one request."""
    together: list[Entry] = []
    sizes: Counter[str] = Counter()
    for entry in entries:
        kind, size = entry.kind, len(entry.content.get("values", ()))
        if together and (kind not in BATCHED or sizes[kind] + size > BATCHED[kind]):
            yield together
            together, sizes = [], Counter()
        if kind in BATCHED:
            together.append(entry)
            sizes[kind] += size
        else:
            yield [entry]
    if together:
        yield together


def _send(journal: Journal, store: MlflowClient, run_id: str, entries: Sequence[Entry]) -> None:
    try:
        _request(journal, store, run_id, entries)
    except Exception as error:
        if not is_refusal(error):
            raise
        if is_gone(error):
            logger.warning("MLflow has no run %s any more: %s", run_id, one_line(error))
            for entry in entries:
                journal.refused(entry, one_line(error))
        elif len(entries) > 1:  # which of them is it?
            for entry in entries:
                _send(journal, store, run_id, [entry])
        else:
            _send_in_parts(journal, store, run_id, entries[0], one_line(error))
        return
    journal.delivered(entries[-1])


def _send_in_parts(
    journal: Journal, store: MlflowClient, run_id: str, entry: Entry, reason: str
) -> None:
    """Send each value of an entry that was refused by itself; keep those that still are."""
    values = entry.content.get("values", [])
    wrong = []
    for value in values if len(values) > 1 else []:
        try:
            alone = Entry(entry.end, {**entry.content, "values": [value]})
            _request(journal, store, run_id, [alone])
        except Exception as error:
            if not is_refusal(error):
                raise
            wrong.append(value)
            reason = one_line(error)
    logger.warning("MLflow refuses %s of run %s: %s", entry.kind, run_id, reason)
    if wrong:
        entry = Entry(entry.end, {**entry.content, "values": wrong})
    journal.refused(entry, reason)


def _request(journal: Journal, store: MlflowClient, run_id: str, entries: Sequence[Entry]) -> None:
    kind, content = entries[0].kind, entries[0].content
    if kind in BATCHED:
        found = _entities(entries)
        store.log_batch(run_id, found["metrics"], found["params"], found["tags"])
    elif kind == "artifact":
        place = journal.files / content["place"]
        if place.exists():  # else it was sent, and the note of that was lost
            store.log_artifacts(run_id, str(place), content["folder"])
    elif kind == "inputs":
        store.log_inputs(run_id, datasets=[_dataset(one) for one in content["datasets"]])
    elif kind == "end":
        store.set_terminated(run_id, content["status"], content["time"])
    elif kind != "run":  # that one is in the store already
        raise ValueError(f"{journal.path}: unknown entry {kind!r}")


def _entities(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    """The values of entries as arguments of `log_batch`, by kind."""
    from mlflow.entities import Metric, Param, RunTag

    kinds: dict[str, Any] = {"metrics": Metric, "params": Param, "tags": RunTag}
    return {
        kind: [made(*v) for entry in entries if entry.kind == kind for v in entry.content["values"]]
        for kind, made in kinds.items()
    }


def _dataset(values: dict[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = [InputTag(name, value) for name, value in values.get("tags", {}).items()]
    fields = {name: value for name, value in values.items() if name != "tags"}
    return DatasetInput(Dataset(**fields), tags)
