"""The catalog: outputs of cacheable tasks, found again by what they were made from."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from flyteidl.core import catalog_pb2, identifier_pb2, literals_pb2, tasks_pb2
from google.protobuf.message import Message


@dataclass(frozen=True)
class Entry:
    """Stored outputs and who made them."""

    outputs: literals_pb2.LiteralMap
    metadata: catalog_pb2.CatalogMetadata


@dataclass
class Catalog:
    """Lives as long as the cluster: every execution looks into the same one."""

    entries: dict[str, Entry] = field(default_factory=dict)
    _reservations: dict[str, threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock)
    )

    @contextmanager
    def reserved(self, key: str, serializable: bool) -> Iterator[None]:
        """Let one at a time make outputs for a key, when the task asks for that."""
        if not serializable:
            yield
            return
        with self._reservations[key]:
            yield


def catalog_key(
    template: tasks_pb2.TaskTemplate,
    version: str,
    inputs: literals_pb2.LiteralMap,
    ignored: Sequence[str],
) -> str:
    """Project, domain, name, cache version, typed interface and inputs, as one digest.

    The version of the code is not part of it: that is what the cache version is for.
    """
    compared = {name: value for name, value in inputs.literals.items() if name not in ignored}
    digest = hashlib.sha256()
    task = template.id
    digest.update("\0".join((task.project, task.domain, task.name, version)).encode())
    digest.update(_bytes(_typed(template)))
    digest.update(_bytes(_hashed_map(literals_pb2.LiteralMap(literals=compared))))
    return digest.hexdigest()


def entry_of(
    template: tasks_pb2.TaskTemplate,
    key: str,
    outputs: literals_pb2.LiteralMap,
    made_by: identifier_pb2.TaskExecutionIdentifier,
) -> Entry:
    dataset = identifier_pb2.Identifier()
    dataset.CopyFrom(template.id)
    dataset.resource_type = identifier_pb2.DATASET
    return Entry(
        outputs,
        catalog_pb2.CatalogMetadata(
            dataset_id=dataset,
            artifact_tag=catalog_pb2.CatalogArtifactTag(artifact_id=key, name=f"cached-{key}"),
            source_task_execution=made_by,
        ),
    )


def _typed(template: tasks_pb2.TaskTemplate) -> Message:
    """The interface without descriptions: a better docstring is no other task."""
    interface = type(template.interface)()
    interface.CopyFrom(template.interface)
    for variables in (interface.inputs.variables, interface.outputs.variables):
        for variable in variables.values():
            variable.ClearField("description")
    return interface


def _hashed_map(literals: literals_pb2.LiteralMap) -> literals_pb2.LiteralMap:
    return literals_pb2.LiteralMap(
        literals={name: _hashed(literal) for name, literal in literals.literals.items()}
    )


def _hashed(literal: literals_pb2.Literal) -> literals_pb2.Literal:
    """A literal that carries a hash is known by it alone; so are those inside lists and maps."""
    if literal.hash:
        return literals_pb2.Literal(hash=literal.hash)
    if literal.HasField("collection"):
        parts = [_hashed(part) for part in literal.collection.literals]
        return literals_pb2.Literal(collection=literals_pb2.LiteralCollection(literals=parts))
    if literal.HasField("map"):
        return literals_pb2.Literal(map=_hashed_map(literal.map))
    return literal


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
