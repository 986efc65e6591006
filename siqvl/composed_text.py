"""Texts in Unicode's composed form (NFC), and names that are equal in it.

An `é` is one character, or an `e` and an accent that is put on it: two texts that look the same and
never match. Texts are composed where they come in, as Qwen's tokenizer does before anything else.
Names of files and columns are looked for as they are written first: a Mac writes them decomposed
(NFD), so that a table and the files that it names may differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from unicodedata import is_normalized, normalize

MOST_PARTS = 4  # of a path, that are looked for in several forms


def composed(text: str) -> str:
    """The text in NFC; most texts are in it already, which is told without a copy."""
    return text if is_normalized("NFC", text) else normalize("NFC", text)


def alike(name: str, names: Iterable[str]) -> list[str]:
    """Those of some names that are this one, or become it when both are composed.

    The name itself comes first where it is among them; several say that it is ambiguous.
    """
    wanted = composed(name)
    found = [one for one in names if composed(one) == wanted]
    return sorted(found, key=lambda one: one != name)


def other_forms(path: str) -> list[str]:
    """A path whose parts are composed or decomposed, each for itself, but for the path as it is."""
    if path.isascii():
        return []
    parts = path.split("/")
    if sum(not part.isascii() for part in parts) > MOST_PARTS:
        ways = [[normalize(form, part) for part in parts] for form in ("NFC", "NFD")]
        found = ["/".join(way) for way in ways]
    else:
        choices = [
            dict.fromkeys((part, normalize("NFC", part), normalize("NFD", part))) for part in parts
        ]
        found = ["/".join(way) for way in product(*choices)]
    return [one for one in dict.fromkeys(found) if one != path]
