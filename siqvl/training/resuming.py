"""Whether a stage goes on from a state: where its states are, and what wrote them.

Their folder is named by all that the recipe, the rows and the parent checkpoint decide of the
weights, so that a state of other figures or other data is never found. What no recipe says stands
in the state itself: the code, the versions of the libraries that compute, the number of threads.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from siqvl.data.manifest import Manifest
from siqvl.errors import UserError
from siqvl.files import folder_hash
from siqvl.recipe import ChangedCode, Recipe, Stage
from siqvl.recipe.keys import state_key, state_key_of_0_1
from siqvl.training.places import all_states
from siqvl.training.states import CHECKSUMS, state_step, states

logger = logging.getLogger(__name__)

PROVENANCE = "provenance.json"
#: Packages of siqvl whose code decides what a step does to the weights.
DECIDING = ("model", "data", "adapters", "training", "generation", "evaluation/scoring")
LIBRARIES = ("torch", "transformers")  # that compute it in every stage


@dataclass(frozen=True)
class Provenance:
    """What wrote a state.

    Attributes:
        code: sha256 over the modules in DECIDING.
        libraries: name -> version, of LIBRARIES and of what else takes part in the stage.
        threads: of the process on its CPU. Sums over several of them are rounded otherwise, the
            gains of a LayerNorm among them.
    """

    code: str
    libraries: dict[str, str]
    threads: int

    @classmethod
    def here(cls, *besides: str) -> Provenance:
        """What this process would write.

        Args:
            besides: libraries that take part in the stage, beside LIBRARIES.
        """
        import torch

        libraries = {name: _version(name) for name in dict.fromkeys((*LIBRARIES, *besides))}
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


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"


@cache
def _code() -> str:
    """The digest of the modules as they are when it is first asked for."""
    root = Path(__file__).resolve().parent.parent

    def decides(path: Path) -> bool:
        within = path.relative_to(root).as_posix()
        return path.suffix == ".py" and within.startswith(tuple(f"{one}/" for one in DECIDING))

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
    if is_first_process() and states(old) and not all_states(folder):
        folder.mkdir(exist_ok=True)
        for state in states(old):
            with suppress(FileNotFoundError):  # another attempt does the same
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
        if other != folder and all_states(other) and is_first_process():
            logger.warning("states in %s are of another recipe or other rows: not used", other)
    for state in all_states(folder):
        if (differing := _differing(state)) is not None:
            goes_on, step = is_usable(state, changed_code), state_step(state)
            if differing and is_first_process():
                what = "going on" if goes_on else "beginning anew"
                logger.warning("step %d was written by other code (%s); %s", step, differing, what)
            return


def is_usable(state: Path, changed_code: ChangedCode) -> bool:
    """Whether a state may be gone on from, by what wrote it.

    Raises:
        UserError: other code wrote it, and `changed_code` does not say what to do.
    """
    differing = _differing(state)
    if differing and changed_code == "refuse":
        raise UserError(
            f"the state of step {state_step(state)} in {state.parent} was written by other code "
            f"({differing}): set `changed_code: go_on` in the recipe to continue from it, to "
            "weights that one run might not have had, or `changed_code: begin_anew` to train from "
            "step 0 again"
        )
    return not differing or changed_code == "go_on"


def keep_threads(state: Path | None) -> None:
    """Compute with as many threads as the state that is gone on from was, and say so."""
    import torch

    written = Provenance.of(state) if state else None
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


def _is_named(state: Path) -> bool:
    """Whether the checksums of a state name its provenance."""
    try:
        return PROVENANCE in (state / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True


def _differing(state: Path) -> str | None:
    """What differs from what would write a state here, but for the threads, in words.

    Returns:
        "" where nothing does; None of one that has lost what it said, which will not be used.
    """
    written = Provenance.of(state)
    if written is None:
        return None if _is_named(state) else "that of siqvl 0.1"
    here = Provenance.here(*written.libraries)
    found = ["siqvl's own"] if written.code != here.code else []
    for name, now in here.libraries.items():
        was = written.libraries.get(name, "?")
        found += [f"{name} {was}, here {now}"] if was != now else []
    return ", ".join(found)
