"""What Flyte says of a task that failed for good, as a sentence that helps.

A pod that is lost says nothing itself. What the failure node of a pipeline is given then is what
Kubernetes knew, with the end of the pod's log, inside of what FlytePropeller counted. All forms but
those marked (read) were seen with Flyte 1.16.8; `tests/tasks/test_failure_reasons.py` has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from siqvl.errors import one_line
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind

MOST_CHARACTERS = 1000
#: `[0-1][3]: ` begins what elements of a map have to say.
ELEMENTS = re.compile(r"^((?:\[\d+(?:-\d+)?\])+): ", re.MULTILINE)
COUNTED = re.compile(
    r"\[(?P<current>\d+)/(?P<most>\d+)\] currentAttempt done\. "
    r"Last Error: (?P<kind>[A-Z]+)::(?P<rest>.*)",
    re.DOTALL,
)
DIED = re.compile(
    r"\[(?P<pod>[^\]\n]+)\] terminated with exit code \((?P<code>\d+)\)\. "
    r"Reason \[(?P<reason>[^\]\n]*)\]\. Message: \n(?P<log>.*)\.\s*\Z",
    re.DOTALL,
)
DELETED = re.compile(r"object \[\S+/(?P<pod>\S+)\] terminated in the background, manually")
GONE = re.compile(r"resource not found, name \[\S+/(?P<pod>\S+)\]")
JOB = re.compile(r"PyTorchJob (?P<pod>\S+) is failed because (?P<workers>\d+) \w+ replica\(s\)")
#: Kubernetes' words for a pod that is moved out as its node is short of something (read).
EVICTED = re.compile(r"node was low on resource: (?P<what>[\w-]+)|ephemeral local storage")
TIMED_OUT = re.compile(r"\Atask (?:execution|active) timeout \[(?P<time>\S+)\] expired")  # (read)
NODES_TIME_OUT = ("Dynamic workflow failed", "Timeout in node")  # the second one is read
MESSAGE = "\nMessage:\n\n"  # flytekit's, before the exception without its trace
#: flytekit's on this machine, before what a task said.
RAISED = re.compile(r"^\s*Error encountered while executing '[^'\n]*':\s*$", re.MULTILINE)


class Cause(StrEnum):
    """What became of a task."""

    ERROR = "error"  # it says itself what
    OUT_OF_MEMORY = "out of memory"
    EVICTED = "evicted"
    KILLED = "killed"
    CRASHED = "crashed"
    DELETED = "deleted"
    GONE = "gone"
    WORKER = "worker lost"
    TIME = "time"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Account:
    """What is known of a task that failed, or of some elements of a map."""

    cause: Cause
    said: str = ""  # the error, the end of the log, or what nobody knows the form of
    #: `<execution>-<node>-<attempt>`, that of a PyTorchJob, or the container's of a pod template
    pod: str = ""
    attempts: int | None = None  # that failed like this
    elements: str = ""  # of a map: `0-1, 3`
    figure: str = ""  # exit code, number of workers, time, or what a node was short of


def accounts(message: str) -> list[Account]:
    """Return what a message of Flyte's tells; several where elements of a map failed differently.

    Args:
        message: of the failure node's error.
    """
    if not ELEMENTS.match(message):
        return [_account(message)]
    found = list(ELEMENTS.finditer(message))
    ends = [match.start() for match in found[1:]] + [len(message)]
    return [
        _account(message[match.end() : end], match[1].strip("[]").replace("][", ", "))
        for match, end in zip(found, ends, strict=True)
    ]


def _account(message: str, elements: str = "") -> Account:
    attempts = None
    while counted := COUNTED.match(message.lstrip()):
        # lost pods are counted from 0, all else from 1; a time-out's count is of its dynamic task
        more = {"SYSTEM": 1, "USER": 0}.get(counted["kind"])
        attempts = None if more is None else int(counted["most"]) + more
        message = counted["rest"]
    cause, said, pod, figure = _cause(message)
    return Account(cause, said, pod, attempts, elements, figure)


def _cause(message: str) -> tuple[Cause, str, str, str]:
    """Cause, what was said, pod and figure."""
    if MESSAGE in message:
        return Cause.ERROR, _error(message.rpartition(MESSAGE)[2]), "", ""
    if died := DIED.search(message):
        pod, code, log = died["pod"], died["code"], _last_line(died["log"])
        if died["reason"] == "OOMKilled":
            return Cause.OUT_OF_MEMORY, log, pod, code
        if evicted := EVICTED.search(message[: died.start()]):
            return Cause.EVICTED, log, pod, evicted["what"] or "ephemeral-storage"
        return (Cause.KILLED if code in ("137", "247") else Cause.CRASHED), log, pod, code
    if "OOMKilled" in message:  # of a pod that said that it had succeeded (read)
        return Cause.OUT_OF_MEMORY, "", "", ""
    if evicted := EVICTED.search(message):
        return Cause.EVICTED, "", "", evicted["what"] or "ephemeral-storage"
    for cause, form in {Cause.DELETED: DELETED, Cause.GONE: GONE}.items():
        if found := form.search(message):
            return cause, "", found["pod"], ""
    if job := JOB.search(message):
        return Cause.WORKER, "", job["pod"], job["workers"]
    if time := TIMED_OUT.match(message):
        return Cause.TIME, "", "", time["time"]
    if message.strip() in NODES_TIME_OUT:
        return Cause.TIME, "", "", ""
    return Cause.UNKNOWN, _error(message), "", ""


def _error(text: str) -> str:
    """`UserError: a sentence` -> the sentence; of other exceptions the class stays before it."""
    return _short(RAISED.sub("", text)).removeprefix("UserError: ")


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return _short(lines[-1]) if lines else ""


def _short(text: str) -> str:
    """On one line, and not too long for a tag that people read."""
    line = one_line(Exception(text.strip())) if text.strip() else ""
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]} …"


def sentence(account: Account, who: str, kind: Kind | None, recipe: Recipe) -> str:
    """Return why a task failed and what helps.

    Args:
        who: the name of its run, such as `vqa_sft evaluation`.
        kind: whose requests it has; None where that is not known.
    """
    if account.cause is Cause.ERROR:
        return account.said
    return SENTENCES[account.cause](account, who, _Asked(kind, recipe))


@dataclass(frozen=True)
class _Asked:
    """What the recipe asked for, in words."""

    kind: Kind | None
    recipe: Recipe

    def key(self, name: str) -> str:
        return f"compute.{self.kind.value if self.kind else '<kind>'}.{name}"

    @property
    def memory(self) -> str:
        request = self.recipe.compute.of(self.kind) if self.kind else None
        return f"its {request.memory} of memory" if request else "its memory"

    @property
    def smaller(self) -> str:
        """What else than more memory would help."""
        keys = {Kind.TRAINING: "batch_size", Kind.EVALUATION: "evaluation.batch_size"}
        return f" or lower {keys[self.kind]}" if self.kind in keys else ""

    @property
    def spot(self) -> bool:
        return self.kind is not None and self.recipe.compute.of(self.kind).interruptible


def _in_all(account: Account) -> str:
    match account.attempts:
        case None:
            return ""
        case 1:
            return " in its only attempt"
        case 2:
            return " in both attempts"
        case number:
            return f", in all {number} attempts"


def _out_of_memory(account: Account, who: str, asked: _Asked) -> str:
    return (
        f"{who} ran out of {asked.memory}{_in_all(account)}: raise {asked.key('memory')}"
        f"{asked.smaller}"
    )


def _evicted(account: Account, who: str, asked: _Asked) -> str:
    key = asked.key("memory" if account.figure == "memory" else "disk")
    return f"{who} was moved out of a node short of {account.figure}{_in_all(account)}: raise {key}"


def _lost(account: Account, who: str, asked: _Asked) -> str:
    """A pod that was taken away, in one of three ways."""
    how = {
        Cause.KILLED: f"was killed from outside (exit code {account.figure})",
        Cause.DELETED: "had its pod deleted, as a drain and a spot node that is taken back do",
        Cause.GONE: "lost its pod together with the node",
    }[account.cause]
    helps = f"set {asked.key('interruptible')} to false" if asked.spot else None
    helps = helps or (
        f"if its node was short of memory, raise {asked.key('memory')}"
        if account.cause is Cause.KILLED
        else "start it when the cluster is not being drained"
    )
    return (
        f"{who} {how}{_in_all(account)}: {helps}, or ask for a higher "
        "max-node-retries-system-failures of the cluster (and tell compute.system_retries)"
    )


def _crashed(account: Account, who: str, asked: _Asked) -> str:
    ending = f', and its log ends with "{account.said}"' if account.said else ""
    return f"{who} ended with exit code {account.figure}{_in_all(account)}{ending}"


def _worker(account: Account, who: str, asked: _Asked) -> str:
    number = int(account.figure)
    workers = "a worker" if number == 1 else f"{number} of its workers"
    return (
        f"{who} lost {workers}{_in_all(account)}: raise {asked.key('memory')} if the log of one "
        f"says Killed, or {asked.key('retries')} for more attempts"
    )


def _time(account: Account, who: str, asked: _Asked) -> str:
    of = f" of {account.figure}" if account.figure else ""
    return (
        f"{who} was ended by a time-out{of} of the cluster, which counts from when a pod is "
        f"queued: ask for longer `default-deadlines`; {asked.key('timeout_minutes')} is another one"
    )


def _unknown(account: Account, who: str, asked: _Asked) -> str:
    return account.said or f"{who} failed, and Flyte does not say why"


SENTENCES: dict[Cause, Callable[[Account, str, _Asked], str]] = {
    Cause.OUT_OF_MEMORY: _out_of_memory,
    Cause.EVICTED: _evicted,
    Cause.KILLED: _lost,
    Cause.DELETED: _lost,
    Cause.GONE: _lost,
    Cause.CRASHED: _crashed,
    Cause.WORKER: _worker,
    Cause.TIME: _time,
    Cause.UNKNOWN: _unknown,
}
