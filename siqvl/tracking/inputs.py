"""Prepared data as MLflow knows data sets: what a run read, by name, fingerprint and source."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePath
from typing import Any, Literal

from siqvl.data.manifest import FILE_NAME, Manifest
from siqvl.data.schema import MESSAGE_COLUMNS, RowKind
from siqvl.files import expanded
from siqvl.recipe import Source
from siqvl.tracking.runs import RunLog

Context = Literal["training", "evaluation"]
#: MLflow refuses longer ones (`mlflow.utils.validation`).
MAX_NAME, MAX_DIGEST, MAX_SOURCE = 500, 36, 65_535
CONTEXT_TAG = "mlflow.data.context"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def log_inputs(log: RunLog, folder: Path, context: Context) -> None:
    """Say in a run that it read the prepared data of a folder; once more changes nothing."""
    log.inputs(dataset_inputs(folder, context))


def dataset_inputs(folder: Path, context: Context) -> list[dict[str, Any]]:
    """One data set for each manifest in a folder, as `RunLog.inputs` takes it; all fit its limits.

    Raises:
        UserError: a manifest is damaged.
    """
    manifests = sorted(folder.rglob(FILE_NAME))
    return [_input(Manifest.read(file.parent), context) for file in manifests]


def _input(manifest: Manifest, context: Context) -> dict[str, Any]:
    kinds = {_source_type(source) for source in manifest.sources}
    return {
        "name": " + ".join(dict.fromkeys(map(_name, manifest.sources)))[:MAX_NAME],
        "digest": manifest.fingerprint[:MAX_DIGEST],
        "source_type": kinds.pop() if len(kinds) == 1 else "mixture",
        "source": _source(manifest.sources),
        "schema": json.dumps({"mlflow_colspec": _columns(manifest.kind)}),
        "profile": json.dumps(_profile(manifest)),
        "tags": {CONTEXT_TAG: context},
    }


def _name(source: Source) -> str:
    """`shapes vqa test`, `finevision HuggingFaceM4/FineVision chartqa,docvqa train`."""
    path = "/".join(PurePath(source.path or "").parts[-2:])
    parts = (source.kind, path, ",".join(source.subsets), source.split)
    return " ".join(part for part in parts if part)


def _source_type(source: Source) -> str:
    """As MLflow calls it; it knows how to open `hugging_face`."""
    if source.path is None:
        return "code"
    path = PurePath(source.path)
    on_disk = expanded(source.path).exists() or path.suffix or "$" in source.path
    return "hugging_face" if _HUB_ID.fullmatch(source.path) and not on_disk else "local"


def _source(sources: list[Source]) -> str:
    """What the recipe says of it; of a single hub data set with the keys that MLflow reads."""
    said = [source.model_dump(mode="json", exclude_defaults=True) for source in sources]
    content: dict[str, Any] = {"sources": said}
    if len(said) == 1:
        content = said[0] | {"split": sources[0].split, "uri": sources[0].path or sources[0].kind}
    text = json.dumps(content)
    return text if len(text) <= MAX_SOURCE else json.dumps({"sources": len(said)})


def _columns(kind: RowKind) -> list[dict[str, Any]]:
    """The columns of the rows, in the words of MLflow's schemas."""
    text, texts = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    turn = {name: {"type": "string", "required": True} for name in ("role", "content")}
    turns = {"type": "array", "items": {"type": "object", "properties": turn}}
    columns: dict[str, dict[str, Any]] = {
        "id": text,
        "images": {"type": "array", "items": {"type": "binary"}},
        "image_hashes": texts,
    }
    columns |= dict.fromkeys(MESSAGE_COLUMNS[kind], turns)
    if kind is RowKind.EVALUATION:
        columns |= {"question": text, "answers": texts, "choices": texts}
        columns |= {"benchmark": text, "split": text}
    columns |= {"source": text, "meta": text}
    return [{"name": name, "required": True, **column} for name, column in columns.items()]


def _profile(manifest: Manifest) -> dict[str, Any]:
    """Sizes, and what was left out of what was published."""
    return {
        "fingerprint": manifest.fingerprint,
        "num_rows": manifest.rows,
        "rows_of_sources": manifest.rows_of_sources,
        "distinct_images": manifest.distinct_images,
        "quarantined": sum(manifest.quarantined.values()),
        "left_out": sum(manifest.left_out.values()),
        "seed": manifest.seed,
    }
