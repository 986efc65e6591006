"""A checkpoint directory that can be judged and registered, but not loaded: it has no weights."""

import hashlib
import json
from pathlib import Path

from siqvl.checkpoint import CARD, HISTORY, CheckpointCard
from siqvl.recipe import Recipe, Stage

WEIGHTS = "model.safetensors"


def weights_of(name: str) -> bytes:
    return f"weights of {name}".encode()


def hash_of(name: str) -> str:
    """What the card of a made checkpoint has for its hash."""
    return by_hand({WEIGHTS: weights_of(name)})


def by_hand(files: dict[str, bytes]) -> str:
    """The hash of a flat folder's files, as its definition says."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return whole.hexdigest()


def made_checkpoint(folder: Path, recipe: Recipe, name: str, stage: Stage = Stage.DPO) -> Path:
    folder.mkdir(parents=True)
    card = CheckpointCard(
        stage=stage,
        hash=hash_of(name),
        parent="c" * 64,
        parent_stage=Stage.COT_SFT,
        recipe=recipe.model_dump(mode="json"),
        recipe_hash=recipe.hash(),
        data_fingerprint="d" * 64,
        code_version="0.1.0+0123456789ab",
        mlflow_run=None,
        metrics={},
    )
    (folder / CARD).write_text(card.model_dump_json())
    (folder / WEIGHTS).write_bytes(weights_of(name))
    return folder


def signed(folder: Path) -> Path:
    """Have a checkpoint's card name the files that lie there now, as one that was written so."""
    files = {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name not in (CARD, HISTORY)
    }
    card = json.loads((folder / CARD).read_text())
    card["hash"] = by_hand(files)
    card["files"] = {name: hashlib.sha256(files[name]).hexdigest() for name in files}
    (folder / CARD).write_text(json.dumps(card))
    return folder
