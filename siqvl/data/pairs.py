"""Preference pairs -> batches in which a pair's prompt and pictures stand once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain

import torch

from siqvl.data.collate import Batch, Features, pictures
from siqvl.data.encoded import IGNORED, Item
from siqvl.model.processing import SiQVLProcessor


@dataclass(frozen=True)
class PreferenceCollator:
    """Pairs for preference training; takes items, one a row, or packs of them, one pack a row.

    With `shared_prompt` a pair is [prompt, chosen completion, copy of the prompt's last token,
    rejected completion]. The rejected branch sees the prompt but for its last token, for which the
    copy stands, at the same position, and nothing of the chosen one: so each completion is exactly
    what it would be after the prompt alone, and its first token is predicted by the token before
    it, as everywhere else. Without it the sides are samples of their own, as in `PackedCollator`.

    Returns:
        `input_ids`, `position_ids`, `labels`, each (B, T); the pictures of every pair once, in
        reading order; `completion_tokens`, a list of 2 * pairs ints, how many labels each
        completion has: chosen, rejected, pair after pair, the order in which they are read; and
        `ref_chosen_logps`, `ref_rejected_logps` (pairs) where items carry them. Besides:

        - with `shared_prompt`: `segments` (B, T). Pair i of a row has 3i on its prompt, 3i + 1 from
          the prompt's last token on, 3i + 2 from its copy on. A token sees those before it, and
          itself, that have its own segment or are the prompt of it; there is no other mask.
        - without, if there are pictures: `image_order`, for every picture that the rows show the
          number of the one it is, as both sides show those of their pair.

    Args:
        chosen_alone: leave the rejected sides out, whose `completion_tokens` are 0 then: for a loss
            that says nothing of them.
        one_row: lay all pairs of a batch into a single row, see `PackedCollator`; for
            flash_attention_2, which takes no `segments`.

    Raises, when called:
        ValueError: the sides of a pair have different prompts, or none.
    """

    processor: SiQVLProcessor
    features: Features | None = None
    _: KW_ONLY
    shared_prompt: bool = True
    one_row: bool = False
    chosen_alone: bool = False

    def __call__(self, items: Sequence[Item] | Sequence[Sequence[Item]]) -> Batch:
        packs = [[one] if isinstance(one, Mapping) else one for one in items]
        pairs = list(chain.from_iterable(packs))
        rows = [self._row(pack) for pack in ([pairs] if self.one_row else packs)]
        width = max(len(row["input_ids"]) for row in rows)
        for row in rows:
            fill = width - len(row["input_ids"])
            row["input_ids"] += [self.processor.tokenizer.pad_token_id] * fill
            row["labels"] += [IGNORED] * fill
            row["position_ids"] += range(fill)
            row["segments"] += [row["segments"][-1] + 1] * fill  # a prompt: sees itself alone
        batch: Batch = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
        if not self.shared_prompt:
            del batch["segments"]
        batch |= pictures(pairs, self.processor, self.features)
        if not self.shared_prompt and batch.keys() & {"pixel_values", "vision_features"}:
            batch["image_order"] = torch.tensor(_shown(pairs, sides=1 if self.chosen_alone else 2))
        batch["completion_tokens"] = [
            sum(label != IGNORED for label in pair[f"{side}_labels"])
            * (side == "chosen" or not self.chosen_alone)
            for pair in pairs
            for side in ("chosen", "rejected")
        ]
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in pairs[0]:
                batch[name] = torch.tensor([pair[name] for pair in pairs])
        return batch

    def _row(self, pairs: Sequence[Item]) -> dict[str, list[int]]:
        row: dict[str, list[int]] = {
            name: [] for name in ("input_ids", "position_ids", "labels", "segments")
        }
        for number, pair in enumerate(pairs):
            prompt = _common_prompt(pair)
            # where the second side begins: at the prompt's last token, or at its first one
            start = prompt - 1 if self.shared_prompt else 0
            sides = (("chosen", 0), ("rejected", start))
            for side, first in sides[:1] if self.chosen_alone else sides:
                ids, labels = pair[f"{side}_input_ids"], pair[f"{side}_labels"]
                row["input_ids"] += ids[first:]
                row["labels"] += [IGNORED, *labels[first + 1 :]]
                row["position_ids"] += range(first, len(ids))
            chosen, rejected = len(pair["chosen_input_ids"]), len(pair["rejected_input_ids"])
            row["segments"] += [3 * number] * (prompt - 1)
            row["segments"] += [3 * number + 1] * (chosen - prompt + 1)
            if not self.chosen_alone:
                row["segments"] += [3 * number + 2] * (rejected - start)
        return row


def _common_prompt(pair: Item) -> int:
    """The tokens before the completions of a pair, which both sides have in common."""
    found = [
        next((place for place, label in enumerate(pair[f"{side}_labels"]) if label != IGNORED), 0)
        for side in ("chosen", "rejected")
    ]
    length = found[0]
    same = pair["chosen_input_ids"][:length] == pair["rejected_input_ids"][:length]
    if found[1] != length or not length or not same:
        raise ValueError(
            f"the sides of a pair need the same prompt, got prompts of {found[0]} and {found[1]} "
            "tokens"
        )
    return length


def _shown(pairs: Sequence[Item], *, sides: int) -> list[int]:
    """The number of the picture that each place shows, the sides of a pair one after the other."""
    order: list[int] = []
    first = 0
    for pair in pairs:
        count = len(pair["image_hashes"] if "image_hashes" in pair else pair["images"])
        order += sides * list(range(first, first + count))
        first += count
    return order
