"""What the card of a folder, its README.md, says of the files in it.

A data set's card may name its subsets (`configs`), their splits and the files of each, as on the
hub. Where it does, that is what counts, for `datasets` and here, whatever files are called.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from siqvl.errors import UserError, one_line

Splits = dict[str, list[Path]]
CARD = "README.md"


def files_said(root: Path) -> dict[str, Splits]:
    """Subset -> split -> its files, as the card of a folder says; empty where it says nothing.

    Raises:
        UserError: the card cannot be understood, or a pattern of it matches no file.
    """
    card = root / CARD
    return _read(root, card.stat().st_mtime_ns) if card.is_file() else {}


@lru_cache(maxsize=16)
def _read(root: Path, changed: int) -> dict[str, Splits]:
    """Read a card, once for each time of its last change."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    try:
        # `datasets` hands them out without a name only where they are asked for
        text = (root / CARD).read_text(encoding="utf-8")
        if not text.lstrip().startswith("---") or "configs" not in text:
            return {}
        configs = MetadataConfigs.from_dataset_card_data(DatasetCard(text).data)
        found = {name: _splits(root, config) for name, config in configs.items()}
    except UserError:
        raise
    except Exception as error:  # YAML's and the hub's own exceptions, of many kinds
        raise UserError(
            f"{root / CARD} cannot be understood ({one_line(error)[:200]}); mend its `configs`, or "
            "give the `path` of one file"
        ) from None
    return {name: splits for name, splits in found.items() if splits}


def _splits(root: Path, config: dict[str, Any]) -> Splits:
    from datasets.data_files import resolve_pattern, sanitize_patterns

    if "data_dir" in config:
        raise UserError(
            f"{root / CARD} names the folder {config['data_dir']} by `data_dir`, which is not "
            "read; give that folder as `path`"
        )
    if "data_files" not in config:
        return {}
    found: Splits = {}
    for split, patterns in sanitize_patterns(config["data_files"]).items():
        for pattern in patterns:
            if "://" in pattern:
                raise UserError(f"{root / CARD}: {pattern} is no file of this folder, and not read")
            try:
                names = resolve_pattern(pattern, str(root))
            except FileNotFoundError:
                raise UserError(
                    f"{root / CARD}: no file matches {pattern}, which it names for split `{split}`"
                ) from None
            found.setdefault(split, []).extend(map(Path, names))
    return found
