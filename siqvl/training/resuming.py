"""Whether a stage goes on from a state: where its states are, and what wrote them.

Their folder is named by all that the recipe, the rows and the parent checkpoint decide of the
weights, so that a state of other figures or other data is never found. What no recipe says stands
in the state itself: the code, the versions of the libraries that compute, the number of threads.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from siqvl.data.manifest import Manifest
from siqvl.errors import UserError
from siqvl.files import folder_hash
from siqvl.recipe import ChangedCode, Recipe, Stage
from siqvl.recipe.keys import state_key, state_key_of_0_1
from siqvl.training.states import CHECKSUMS, discard, state_step, states

logger = logging.getLogger(__name__)

PROVENANCE = "provenance.json"
#: Packages of siqvl whose code decides what a step does to the weights.
DECIDING = ("model", "data", "training", "generation")
LIBRARIES = ("torch", "transformers")  # that compute it


@dataclass(frozen=True)
class Provenance:
    """What wrote a state.

    Attributes:
        code: sha256 over the modules in DECIDING.
        libraries: name -> version, of LIBRARIES.
        threads: of the process on its CPU. Sums over several of them are rounded otherwise, the
            gains of a LayerNorm among them.
    """

    code: str
    libraries: dict[str, str]
    threads: int

    @classmethod
    def here(cls) -> Provenance:
        """What this process would write."""
        import torch

        libraries = {name: version(name) for name in LIBRARIES}
        return cls(_code(), libraries, torch.get_num_threads())

    @classmethod
    def of(cls, state: Path) -> Provenance | None:
        """What a state says; None for one of version 0.1, or one that is damaged."""
        try:
            return cls(**json.loads((state / PROVENANCE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, state: Path) -> None:
        """Write it into a state that is being saved."""
        (state / PROVENANCE).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


@cache
def _code() -> str:
    """The digest of the modules as they are when it is first asked for."""
    root = Path(__file__).resolve().parent.parent

    def decides(path: Path) -> bool:
        return path.suffix == ".py" and path.relative_to(root).parts[0] in DECIDING

    return folder_hash(root, decides)


def state_folder(
    output: Path, recipe: Recipe, stage: Stage, parent: str | None, manifest: Manifest
) -> Path:
    """Where the states of a stage are, beside its `output`.

    States of version 0.1 for the same recipe, which it named otherwise, are brought there.

    Args:
        parent: hash of the checkpoint that the stage continues from.
        manifest: of its rows.
    """
    data = manifest.fingerprint
    folder = _named(output, state_key(recipe, stage, parent=parent, data=data))
    old = _named(output, state_key_of_0_1(recipe, parent=parent, data=data))
    if is_first_process() and states(old) and not states(folder):
        folder.mkdir(exist_ok=True)
        for state in states(old):
            state.rename(folder / state.name)
    return folder


def judge_states(folder: Path, output: Path, changed_code: ChangedCode) -> None:
    """Decide whether the newest state is gone on from, before any work begins.

    Args:
        folder: of `state_folder`.
        output: of the stage.
        changed_code: of the recipe.

    Raises:
        UserError: other code wrote it, and `changed_code` does not say what to do.
    """
    for other in all_state_folders(output):
        if other != folder and states(other) and is_first_process():
            logger.warning("states in %s are of another recipe or other rows: not used", other)
    newest, written = _newest(folder)
    if newest is None or not (differing := _differing(written, Provenance.here())):
        return
    step = state_step(newest)
    if changed_code == "refuse":
        raise UserError(
            f"the state of step {step} in {folder} was written by other code ({differing}): set "
            "`changed_code: go_on` in the recipe to continue from it, to weights that one run "
            "might not have had, or `changed_code: begin_anew` to train from step 0 again"
        )
    if changed_code == "go_on":
        logger.warning("step %d was written by other code (%s); going on", step, differing)
    elif is_first_process():
        logger.warning("step %d was written by other code (%s); beginning anew", step, differing)
        for state in states(folder):
            discard(state)


def keep_threads(folder: Path) -> None:
    """Compute with as many threads as the newest state was computed with, and say so.

    Args:
        folder: of `state_folder`.
    """
    import torch

    _, written = _newest(folder)
    if written is None or written.threads == (own := torch.get_num_threads()):
        return
    torch.set_num_threads(written.threads)
    logger.warning(
        "going on with %d CPU threads, as the steps before: with %d, as asked for now, sums are "
        "rounded otherwise",
        written.threads,
        own,
    )


def all_state_folders(output: Path) -> list[Path]:
    """Where there are states of a stage, those of other recipes and rows among them."""
    return sorted(output.parent.glob(f".{output.name}.training-*"))


def _named(output: Path, key: str) -> Path:
    return output.with_name(f".{output.name}.training-{key[:12]}")


def is_first_process() -> bool:
    """Whether this is the first of the processes that torch elastic started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _newest(folder: Path) -> tuple[Path | None, Provenance | None]:
    """The newest state and what wrote it, which one of version 0.1 does not say.

    One that has lost what it said is damaged, and is passed over, as it will not be used.
    """
    for state in states(folder):
        written = Provenance.of(state)
        if written is not None or not _is_named(state):
            return state, written
    return None, None


def _is_named(state: Path) -> bool:
    """Whether the checksums of a state name its provenance."""
    try:
        return PROVENANCE in (state / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True


def _differing(written: Provenance | None, here: Provenance) -> str:
    """What differs but for the threads, in words; empty where nothing does."""
    if written is None:
        return "that of siqvl 0.1"
    found = ["siqvl's own"] if written.code != here.code else []
    for name in LIBRARIES:
        was, now = written.libraries.get(name, "?"), here.libraries[name]
        found += [f"{name} {was}, here {now}"] if was != now else []
    return ", ".join(found)
