"""Licences of what a model is made of, as its makers state them; nothing is guessed."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from siqvl.publish.public_recipe import is_local, last_part
from siqvl.recipe.reading.shipped import shipped

UNKNOWN = "unknown"
README = "README.md"
Kind = Literal["model", "dataset"]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*[A-Za-z0-9]")
FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Ingredient:
    """A tower, a language model or a data set.

    Attributes:
        name: a hub id, or the last part of a local path.
        licence: an identifier as on the hub, or `unknown`.
        stated: where that was read, in words.
    """

    name: str
    hub_id: str | None
    licence: str
    stated: str

    @property
    def link(self) -> str:
        """Return its name as Markdown."""
        return f"`{self.name}`"


def ingredient(path: str, kind: Kind, revision: str | None = None) -> Ingredient:
    """Return what is known of a part or a data set that a recipe names by hub id or folder."""
    place = shipped(path)
    if place.exists() or not HUB_ID.fullmatch(path):
        licence, stated = _of_folder(place)
        return Ingredient(last_part(path) if is_local(path) else path, None, licence, stated)
    licence, stated = _of_hub(path, kind, revision)
    return Ingredient(path, path, licence, stated)


def front_matter(text: str) -> dict[str, Any]:
    """Return the YAML at the top of a card; empty where there is none that can be read."""
    import yaml

    found = FRONT_MATTER.match(text)
    with suppress(yaml.YAMLError):
        content = yaml.safe_load(found[1]) if found else {}
        return content if isinstance(content, dict) else {}
    return {}


def _of_folder(folder: Path) -> tuple[str, str]:
    """What the card in a folder says, or the one above it, that tells of several parts."""
    for card in (folder / README, folder.parent / README):
        with suppress(OSError, UnicodeDecodeError):
            licence = front_matter(card.read_text(encoding="utf-8")).get("license")
            if licence:
                return _name(licence), f"the {README} of its folder"
    return UNKNOWN, "its folder names none, or is not on the machine that published"


def _of_hub(hub_id: str, kind: Kind, revision: str | None) -> tuple[str, str]:
    """What a repository's card says: in the cache of this machine, else on the hub."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    with suppress(OSError, UnicodeDecodeError, HFValidationError):
        cached = try_to_load_from_cache(hub_id, README, revision=revision, repo_type=kind)
        if isinstance(cached, str):
            licence = front_matter(Path(cached).read_text(encoding="utf-8")).get("license")
            if licence:
                return _name(licence), "its card on the hub"
    try:
        api = HfApi()
        ask = api.model_info if kind == "model" else api.dataset_info
        data = ask(hub_id, revision=revision, timeout=20).card_data
    except OfflineModeIsEnabled:
        return UNKNOWN, "the hub was not asked, as this machine was offline"
    except (HfHubHTTPError, HFValidationError, OSError, RuntimeError):
        return UNKNOWN, "the hub did not say"
    licence = (data.to_dict() if data else {}).get("license")
    return (_name(licence), "its card on the hub") if licence else (UNKNOWN, "its card names none")


def _name(licence: Any) -> str:
    return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence)


def of_the_whole(given: str | None, parts: list[Ingredient]) -> tuple[str, str]:
    """Return the licence of a model, and why that.

    Args:
        given: by who publishes.
        parts: tower and language model.
    """
    if given:
        return given.lower(), "given by who published this model"
    names = {one.licence for one in parts}
    if len(names) == 1 and UNKNOWN not in names:
        return names.pop(), "the one licence of tower and language model"
    if UNKNOWN in names:
        return UNKNOWN, "not known, since that of a part is not, and none was given"
    return UNKNOWN, "not known, since tower and language model have different ones"
