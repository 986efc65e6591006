"""Delivery of what waits in an outbox: every entry is taken, refused with a reason, or kept.

Nothing keeps a delivery from being cut between the store's answer and the note that it was given.
What is then sent again changes nothing: a point has the time at which it was logged, and a store
has one point of a name, step, time and value; params, tags and files are what they were.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from siqvl.errors import one_line
from siqvl.tracking.offline import create, is_offline, online_id
from siqvl.tracking.outbox import Entry, Outbox, Stream
from siqvl.tracking.server.rest_store import RestStore
from siqvl.tracking.store import REPLACED, Failure, failure, forget_reason, is_gone, is_server

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

#: What MLflow takes in one request of each, and of all together.
MOST = {"metric": 1000, "param": 100, "tag": 100}
TOGETHER = 1000
LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
FIELDS = ("key", "value", "timestamp", "step")  # of a point; others have the first two
#: So many requests with points are under way at once: a store may be far away.
IN_FLIGHT = 4
#: At so many rounds may a store fail on an entry, and take others, before that is refused.
ROUNDS = 3
PROBE = "siqvl.delivery"  # a tag that is written to see whether the store takes anything
UPLOAD = 1e6  # bytes a second that an upload has at least, or it counts as silent


class Held(Exception):
    """A run of which something is left for another time, while others go on."""


@dataclass
class Delivery:
    """Delivery of one stream.

    Args:
        progress: called when the store has answered, and before an upload, with the seconds more
            that it may take.
    """

    outbox: Outbox
    stream: Stream
    store: MlflowClient | RestStore
    progress: Callable[[float], None] = lambda _: None
    sent: int = 0  # entries that were delivered
    left: str = ""  # why something is left

    def run(self) -> int:
        """Deliver what can be, and return how many entries that were.

        Raises:
            Held: something of this run is left, and why.
            Exception: the store is away, and everything that is left stays where it is.
        """
        after, run_id = 0, ""
        while entries := self.outbox.waiting(self.stream, after, IN_FLIGHT * TOGETHER):
            run_id = run_id or self._run_id(entries[0])
            for batches in _groups(_batches(entries), self._in_flight):
                errors = self._at_once(run_id, batches)
                # What the store has is noted before the first that it has not ends this.
                for batch, error in sorted(zip(batches, errors, strict=True), key=_is_failed):
                    self._settle(run_id, batch, error)
            after = entries[-1].id
        if self.left:
            raise Held(self.left)
        return self.sent

    def _run_id(self, first: Entry) -> str:
        """The run in the store, made first if it is not there."""
        run = self.stream.run
        if not is_offline(run):
            return run
        try:
            found = self.outbox.online(run) or online_id(self.store, run)
            if found is None and first.kind == "run":
                found = create(self.store, run, first.content)
        except Exception as error:
            if failure(error) is Failure.AWAY:
                raise
            raise Held(one_line(error)) from error
        if found is None:
            raise Held(f"run {run} is not in the store yet")
        self.outbox.online(run, found)
        return found

    def _settle(self, run_id: str, entries: Sequence[Entry], error: Exception | None) -> None:
        """Note what became of a request; one that failed is made again in smaller ones."""
        uploads = entries[0].kind in ("artifact", "text")  # to a place that may be away by itself
        if error is None:
            self.outbox.delivered(entries)
            self.sent += len(entries)
            self.progress(0.0)
            return
        kind, reason = failure(error), one_line(error)
        if kind is Failure.AWAY and not uploads:
            raise error
        if not is_gone(error) and not self._answers(run_id):
            raise Held(reason) from error
        self.progress(0.0)
        if len(entries) > 1 and not is_gone(error):  # which of them is it?
            half = len(entries) // 2
            for part in (entries[:half], entries[half:]):
                self._settle(run_id, part, self._failed(run_id, part))
        elif kind is Failure.REFUSED or (kind is Failure.FAULT and entries[0].tries + 1 >= ROUNDS):
            if self.outbox.refused(entries, reason):
                logger.warning("MLflow refuses %s of run %s: %s", entries[0].kind, run_id, reason)
        else:
            self.left = reason
            if kind is Failure.FAULT:
                self.outbox.failed(entries[0])

    @property
    def _in_flight(self) -> int:
        return IN_FLIGHT if is_server(self.stream.uri) else 1

    def _at_once(self, run_id: str, batches: Sequence[Sequence[Entry]]) -> list[Exception | None]:
        """What became of each request; see `_failed`."""
        found: list[Exception | None] = [Held("it was cut off")] * len(batches)

        def ask(number: int) -> None:
            found[number] = self._failed(run_id, batches[number])

        # Those of a pool would hold up the end of the process.
        more = [
            threading.Thread(target=ask, args=(number,), daemon=True)
            for number in range(1, len(batches))
        ]
        for thread in more:
            thread.start()
        ask(0)
        for thread in more:
            thread.join()
        return found

    def _failed(self, run_id: str, entries: Sequence[Entry]) -> Exception | None:
        """What became of a request; None if the store has it."""
        if entries[0].kind == "artifact":
            files = self.outbox.place(entries[0]).rglob("*")
            self.progress(sum(file.stat().st_size for file in files) / UPLOAD)
        try:
            self._request(run_id, entries)
        except Exception as error:
            return error
        return None

    def _answers(self, run_id: str) -> bool:
        """Whether the store takes anything for the run, so that it is the entry's own fault."""
        try:
            self.store.set_tag(run_id, PROBE, "asked")
        except Exception as error:
            if failure(error) is Failure.AWAY:
                raise
            return False
        return True

    def _tags(self, run_id: str) -> dict[str, str]:
        return dict(self.store.get_run(run_id).data.tags)

    def _request(self, run_id: str, entries: Sequence[Entry]) -> None:
        kind, content = entries[0].kind, entries[0].content
        if kind in MOST:
            _log_batch(self.store, run_id, entries)
        elif kind == "artifact":
            place = self.outbox.place(entries[0])
            if place.exists():  # else it was sent, and the note of that was lost
                self.store.log_artifacts(run_id, str(place), content["folder"])
        elif kind == "text":
            self.store.log_text(run_id, content["text"], content["name"])
        elif kind == "inputs":
            _log_inputs(self.store, run_id, content["datasets"])
        elif kind == "end":
            tags = self._tags(run_id)
            status = "KILLED" if REPLACED in tags else content["status"]  # by another attempt
            if status == "FINISHED":  # after an attempt that failed
                forget_reason(self.store, run_id, tags)
            self.store.set_terminated(run_id, status, content["time"])
        elif kind == "reopen":
            self.store.update_run(run_id, "RUNNING")
            forget_reason(self.store, run_id, self._tags(run_id))
        elif kind != "run":  # that one is in the store already
            raise ValueError(f"unknown entry {kind!r}")


def _batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Neighbouring entries that go in one request."""
    begin, sizes = 0, Counter[str]()
    for index, entry in enumerate(entries):
        full = sizes[entry.kind] >= MOST.get(entry.kind, 0) or index - begin >= TOGETHER
        if index > begin and (full or entries[begin].kind not in MOST):
            yield entries[begin:index]
            begin, sizes = index, Counter()
        sizes[entry.kind] += 1
    if entries:
        yield entries[begin:]


def _groups(batches: Iterator[Sequence[Entry]], most: int) -> Iterator[list[Sequence[Entry]]]:
    """Neighbouring batches whose order means nothing: those of points alone."""
    together: list[Sequence[Entry]] = []
    for batch in batches:
        free = all(entry.kind == "metric" for entry in batch)
        if together and not (free and len(together) < most):
            yield together
            together = []
        together.append(batch)
        if not free:
            yield together
            together = []
    if together:
        yield together


def _is_failed(settled: tuple[Sequence[Entry], Exception | None]) -> bool:
    return settled[1] is not None


def _log_batch(store: MlflowClient | RestStore, run_id: str, entries: Sequence[Entry]) -> None:
    """Log points, parameters and tags in one request.

    One to a server is written here: MLflow's client makes entities, protobuf, JSON, objects and
    JSON again of every point, which takes most of the time of a delivery, and of Python's lock.
    """
    found = {kind: [one.content for one in entries if one.kind == kind] for kind in MOST}
    if not is_server(store.tracking_uri):
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(*one) for one in found["metric"]]
        params = [Param(*one) for one in found["param"]]
        store.log_batch(run_id, metrics, params, [RunTag(*one) for one in found["tag"]])
        return
    body: dict[str, Any] = {}
    for kind, contents in found.items():
        body[f"{kind}s"] = [dict(zip(FIELDS, content, strict=False)) for content in contents]
    for metric in body["metrics"]:
        if not -(1 << 63) <= metric["step"] < 1 << 63:
            raise ValueError(f"step {metric['step']} is none that MLflow can hold")
        if not math.isfinite(metric["value"]):
            metric["value"] = json.dumps(metric["value"])  # as text, which JSON has no number for
    if isinstance(store, RestStore):
        store.log_points(run_id, body)
        return
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    body["run_id"] = run_id
    answer = http_request(get_default_host_creds(store.tracking_uri), LOG_BATCH, "POST", json=body)
    verify_rest_response(answer, LOG_BATCH)


def _log_inputs(store: MlflowClient | RestStore, run_id: str, datasets: list[Any]) -> None:
    if isinstance(store, RestStore):
        store.log_datasets(run_id, datasets)
    else:
        store.log_inputs(run_id, datasets=[_dataset(one) for one in datasets])


def _dataset(values: dict[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = [InputTag(name, value) for name, value in values.get("tags", {}).items()]
    fields = {name: value for name, value in values.items() if name != "tags"}
    return DatasetInput(Dataset(**fields), tags)
