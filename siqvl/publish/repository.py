"""A checkpoint as a Hugging Face repository: its files, a model card, and its scores."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from siqvl.checkpoint import (
    CARD,
    HISTORY,
    check_outside,
    content_digests,
    verify_checkpoint,
)
from siqvl.errors import UserError
from siqvl.files import file_digests, known_sha256
from siqvl.publish.evidence import Evidence, Place, gather
from siqvl.publish.licences import README
from siqvl.publish.model_card import Published, model_card
from siqvl.publish.public_recipe import public_card
from siqvl.publish.repository_check import check_repository

Copy = Callable[[Path, Path], object]


def write_repository(
    checkpoint: Path,
    folder: Path,
    *,
    places: Iterable[Place],
    licence: str | None,
    reference: str,
    copy: Copy = shutil.copyfile,
) -> Evidence:
    """Write a repository to an empty folder, and check it.

    Args:
        checkpoint: a checkpoint directory.
        places: where its ancestors and scores are looked for.
        licence: of the model; None: that of its parts, where they have one.
        reference: what loads the model from where it will be.
        copy: of a file of the checkpoint.

    Raises:
        UserError: the checkpoint is not what its card says, or the repository must not be
            published as it is.
    """
    card = verify_checkpoint(checkpoint)
    evidence = gather(card, places)
    names = list(content_digests(checkpoint, known_sha256))
    for name in [*names, *([HISTORY] if (checkpoint / HISTORY).is_file() else [])]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(checkpoint / name, folder / name)
    public = public_card(card).model_dump_json(indent=2)
    (folder / CARD).write_text(public + "\n", encoding="utf-8")
    if evidence.scores is not None:
        evidence.scores.write(folder)
    files = [
        (name, (folder / name).stat().st_size, digest)
        for name, digest in file_digests(folder).items()
    ]
    text = model_card(Published(folder, evidence, licence, reference, files)).content
    (folder / README).write_text(text, encoding="utf-8")
    check_repository(folder)
    return evidence


def check_target(folder: Path, checkpoint: Path) -> None:
    """Refuse a folder whose content would be lost.

    Raises:
        UserError: it holds something else than an earlier publication, or is or lies in
            the checkpoint.
    """
    check_outside(folder, checkpoint, "--to")
    if folder.is_file() or (
        folder.is_dir()
        and any(folder.iterdir())
        and not all((folder / name).is_file() for name in (CARD, README))
    ):
        raise UserError(f"{folder} is not empty; name another folder with `--to`")
