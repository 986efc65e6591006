"""Publishing a checkpoint: the repository is written and checked first, then it goes where it is
wanted."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from siqvl.errors import UserError
from siqvl.files import atomic_folder, expanded, link_or_copy
from siqvl.publish.evidence import EvaluationFolder, Evidence, Place
from siqvl.publish.fresh_load import FreshAnswer, answer_elsewhere
from siqvl.publish.licences import HUB_ID, README
from siqvl.publish.repository import check_target, write_repository
from siqvl.publish.run_folder import RunFolder
from siqvl.publish.upload import upload

HUB = "hf://"


@dataclass(frozen=True)
class Target:
    """Where a repository goes: a folder, or an id on the hub.

    Attributes:
        repository: hub id; None: a folder.
        folder: None: the hub.
    """

    repository: str | None
    folder: Path | None

    @classmethod
    def of(cls, text: str) -> Target:
        """Read `--to`: `hf://owner/name`, a folder, or `owner/name` where no folder `owner` is.

        Raises:
            UserError: it is no hub id.
        """
        if text.startswith(HUB):
            if not HUB_ID.fullmatch(text.removeprefix(HUB)):
                raise UserError(f"{text} is no hub id: write {HUB}owner/name")
            return cls(text.removeprefix(HUB), None)
        folder = expanded(text)
        if HUB_ID.fullmatch(text) and not folder.exists() and not folder.parent.exists():
            return cls(text, None)
        return cls(None, folder)

    @property
    def reference(self) -> str:
        """Return what loads the model from there, for its card: of a folder its name alone."""
        return self.repository or (self.folder.resolve().name if self.folder else "")

    def __str__(self) -> str:
        return f"{self.repository} on the hub" if self.repository else f"folder {self.folder}"


@dataclass(frozen=True)
class Wanted:
    """How a checkpoint is to be published.

    Attributes:
        evaluations: EvalReport directories whose scores come before all that is found.
        places: further places to look in, such as MLflow.
        load: whether the repository is loaded in a fresh process first.
    """

    target: Target
    licence: str | None = None
    evaluations: Sequence[Path] = ()
    places: Sequence[Place] = ()
    load: bool = True
    private: bool = False
    branch: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class Publication:
    """What was published, or would be."""

    files: Sequence[tuple[str, int]]
    card: str
    evidence: Evidence
    answer: FreshAnswer | None
    address: str | None = None  # of the commit, or the folder; None: nothing was


def publish(checkpoint: Path, wanted: Wanted, *, dry_run: bool = False) -> Publication:
    """Write a checkpoint's repository, check it, and bring it to its target.

    Raises:
        UserError: it must not or cannot be published; nothing is written or uploaded then.
    """
    target = wanted.target
    named = [_evaluation(folder, checkpoint) for folder in wanted.evaluations]
    places: list[Place] = [*named, RunFolder(checkpoint), *wanted.places]
    if target.folder is not None:
        check_target(target.folder, checkpoint)
    if target.folder is not None and not dry_run:
        with atomic_folder(target.folder) as folder:
            made = _made(checkpoint, folder, wanted, places)
        return _with_address(made, str(target.folder))
    with _scratch(target.reference) as folder:
        made = _made(checkpoint, folder, wanted, places, link=True)
        if dry_run or target.repository is None:
            return made
        card = made.evidence.card
        said = wanted.message or f"Checkpoint {card.hash[:12]} after {card.stage}"
        address = upload(
            folder,
            target.repository,
            private=wanted.private,
            branch=wanted.branch,
            message=said,
        )
    return _with_address(made, address)


def _evaluation(folder: Path, checkpoint: Path) -> EvaluationFolder:
    from siqvl.checkpoint import read_card

    found = EvaluationFolder(folder)
    if found.checkpoint != read_card(checkpoint).hash:
        raise UserError(f"{folder} holds scores of another checkpoint ({found.checkpoint[:12]})")
    return found


def _made(
    checkpoint: Path,
    folder: Path,
    wanted: Wanted,
    places: Sequence[Place],
    *,
    link: bool = False,
) -> Publication:
    options = {"copy": lambda source, to: link_or_copy(source.resolve(), to)} if link else {}
    evidence = write_repository(
        checkpoint,
        folder,
        places=places,
        licence=wanted.licence,
        reference=wanted.target.reference,
        **options,
    )
    answer = answer_elsewhere(folder) if wanted.load else None
    sizes = [
        (str(path.relative_to(folder)), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    card = (folder / README).read_text(encoding="utf-8")
    return Publication(sizes, card, evidence, answer)


def _with_address(made: Publication, address: str) -> Publication:
    return Publication(made.files, made.card, made.evidence, made.answer, address)


@contextmanager
def _scratch(name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="siqvl-publish-") as place:
        folder = Path(place, name.rpartition("/")[2] or "repository")
        folder.mkdir()
        yield folder
