"""`task_resources.limits`: what FlyteAdmin refuses to register, and what Propeller cuts down.

Seen on Flyte 1.16.8: a task that is registered above a limit is refused, an override of a node
above it is cut down to it, without a word. What a pod is given is what its cgroup says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

from flyteidl.core import tasks_pb2, workflow_pb2

from .container import container_of

#: What a Flyte allows whose configuration has no `task_resources` (seen).
DEFAULTS = {"cpu": "2", "memory": "1Gi"}
PERIOD = 100_000  # microseconds, of a CPU quota
_POWERS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


class TooMuch(Exception):
    """A task asks for more than the platform allows."""


def amount(quantity: str) -> Decimal:
    """The number behind a quantity of Kubernetes."""
    found = re.fullmatch(r"([0-9.]+)(m|k|[MGT]i?|Ki)?", quantity)
    assert found, quantity
    digits, unit = found.groups()
    return Decimal(digits) / 1000 if unit == "m" else Decimal(digits) * _POWERS.get(unit or "", 1)


def check_limits(template: tasks_pb2.TaskTemplate, limits: Mapping[str, str]) -> None:
    """Refuse a task as FlyteAdmin does when it is registered.

    Raises:
        TooMuch: in FlyteAdmin's words.
    """
    resources = _asked(template)
    requests, most = _by_name(resources.requests), _by_name(resources.limits)
    for name in sorted(requests.keys() & limits.keys()):
        kind = "default" if name == "gpu" else "limit"  # a GPU's limit is its request
        asked = requests[name] if name == "gpu" else most.get(name, "0")
        if amount(asked) > amount(limits[name]):
            raise TooMuch(
                f"Requested {name.upper().replace('-', '_')} {kind} [{asked}] is greater than "
                f"current limit set in the platform configuration [{limits[name]}]. Please contact "
                "Flyte Admins to change these limits or consult the configuration"
            )


def given(
    template: tasks_pb2.TaskTemplate, overrides: tasks_pb2.Resources, limits: Mapping[str, str]
) -> dict[str, str]:
    """What a pod may use, by name: what its node or its task asks for, cut down to the limits."""
    asked = _by_name(_asked(template).limits) | _by_name(overrides.limits)
    return {name: min(value, limits.get(name, value), key=amount) for name, value in asked.items()}


def _asked(template: tasks_pb2.TaskTemplate) -> tasks_pb2.Resources:
    return container_of(template, workflow_pb2.Node()).resources


def _by_name(entries: Iterable[tasks_pb2.Resources.ResourceEntry]) -> dict[str, str]:
    """`cpu`, `memory`, `gpu`, `ephemeral-storage`."""
    names = tasks_pb2.Resources.ResourceName
    return {names.Name(one.name).lower().replace("_", "-"): one.value for one in entries}


def write_cgroup(folder: Path, allowed: Mapping[str, str]) -> None:
    """The files of a cgroup, version 2, as the kubelet sets it up for a container."""
    folder.mkdir(parents=True)
    cpu, memory = allowed.get("cpu"), allowed.get("memory")
    quota = "max" if cpu is None else int(amount(cpu) * PERIOD)
    (folder / "cpu.max").write_text(f"{quota} {PERIOD}\n")
    pages = "max" if memory is None else int(amount(memory)) // 4096 * 4096
    (folder / "memory.max").write_text(f"{pages}\n")
