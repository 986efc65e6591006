"""A checkpoint directory that can be judged and registered, but not loaded: it has no weights."""

from pathlib import Path

from siqvl.checkpoint import CARD, CheckpointCard
from siqvl.recipe import Recipe, Stage


def made_checkpoint(folder: Path, recipe: Recipe, hash: str, stage: Stage = Stage.DPO) -> Path:
    folder.mkdir(parents=True)
    card = CheckpointCard(
        stage=stage,
        hash=hash,
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
    (folder / "model.safetensors").write_bytes(b"weights of " + hash.encode())
    return folder
