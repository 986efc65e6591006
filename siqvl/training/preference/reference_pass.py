"""Pairs -> their log-probabilities under the model as it is before the first step.

That model is the reference of DPO, so no second one is ever in memory, and none runs beside the one
that learns. Results are kept in `<features_dir>/reference-log-probs/<key>/` for later runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader
from tqdm import tqdm

from siqvl.adapters.attach import is_adapter, plain_name
from siqvl.data.encoded import EncodedDataset
from siqvl.data.features.shares import SEEN_WITHIN, complete
from siqvl.data.features.tower import Precision, image_settings, key_of
from siqvl.data.pairs import PreferenceCollator
from siqvl.device import autocast
from siqvl.errors import UserError
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.tensor_store import Layout, open_store, write_shard
from siqvl.training.preference.pair_log_probs import completion_log_probs, sums

FOLDER = "reference-log-probs"
VERSION = "2"  # 1 kept the hashes of pairs in a tensor of their own
SHARD_PAIRS = 2048


@dataclass(frozen=True)
class Reference:
    """What computes log-probabilities: the model where and as it is, in a stage's precision.

    Args:
        batch_size: sequences in one pass; without shared prompts a pair has two.
        head_chunk: tokens whose logits are in memory at once.
        workers: loader processes that decode pictures.
    """

    model: SiQVLForConditionalGeneration
    collate: PreferenceCollator
    precision: Precision
    batch_size: int
    head_chunk: int
    workers: int = 0

    @property
    def pairs_in_batch(self) -> int:
        return self.batch_size if self.collate.shared_prompt else max(self.batch_size // 2, 1)

    def key(self) -> str:
        """Digests everything that a pair's log-probabilities depend on, but for the pair.

        The attention kernel and the layout are part of it, though they only round differently: a
        run's first loss is then ln 2 as nearly as its precision allows.
        """
        about = {
            "version": VERSION,
            "precision": self.precision,
            "attention": self.model.config.text_config._attn_implementation,
            "shared_prompt": self.collate.shared_prompt,
            "cached_features": self.collate.features is not None,  # which are rounded to bf16
            "config": json.loads(self.model.config.to_json_string()),
            "image_processor": image_settings(self.collate.processor),
        }
        own = (
            (plain_name(name), weight)
            for name, weight in self.model.named_parameters()
            if not is_adapter(name)  # adapters are turned off
        )
        return key_of(about, own)

    def layout(self) -> Layout:
        """Says how log-probabilities are kept: in nats, of the chosen and rejected completion."""
        return Layout(
            key=self.key(),
            origin="this model",
            tensor="log_probs",
            row="pair",
            names="pairs",
            dtype="F32",
            shape=(2,),
        )

    def log_probs(
        self, rows: EncodedDataset, items: list[int]
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Gives, batch by batch in the order of `items`, these and float32 [items, 2] on the CPU.

        Raises:
            UserError: one of them is not finite.
        """
        size = self.pairs_in_batch
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        data: Any = rows  # DataLoader takes whatever has a length and items
        loader = DataLoader(
            data, batch_sampler=batches, collate_fn=self.collate, num_workers=self.workers
        )
        device = self.model.device
        training = self.model.training
        self.model.eval()
        try:
            for numbers, batch in zip(batches, loader, strict=True):
                with torch.no_grad(), autocast(device, self.precision):
                    each = completion_log_probs(
                        self.model,
                        send_to_device(batch, device),
                        core=self.model,
                        head_chunk=self.head_chunk,
                    )
                    found = sums(each).float().cpu().view(-1, 2)
                finite = found.isfinite().all(dim=1).tolist()
                if not all(finite):
                    row = rows.row_id(numbers[finite.index(False)])
                    raise UserError(
                        f"the starting checkpoint gives row {row} NaN or infinite probabilities in "
                        f"{self.precision}; use another `precision`, or repair its weights"
                    )
                yield numbers, found
        finally:
            self.model.train(training)


def reference_log_probs(
    folder: Path,
    reference: Reference,
    rows: EncodedDataset,
    items: Iterable[int],
    *,
    rank: int = 0,
    world: int = 1,
    shares: Sequence[int] | None = None,
    barrier: Callable[[], object] | None = None,
    shard_pairs: int = SHARD_PAIRS,
) -> np.ndarray:
    """Looks up the log-probabilities of some pairs, and computes what the folder lacks.

    A pair is known by its tokens and pictures, so neither the data it is part of nor its place
    there matters.

    Args:
        folder: the recipe's `features_dir`.
        rows: in the view of `as_pairs` that fits the collator of `reference`.
        items: the pairs that training will see.
        rank: of this one of `world` processes, and of the share that it computes without `shares`.
        barrier: waits for all processes; required when there are several.

    Returns:
        float32 [rows, 2], chosen and rejected, NaN in those that are not among `items`.

    Raises:
        UserError: the model gives values that are not finite, or the folder cannot be written to.
    """
    if world > 1 and barrier is None:
        raise ValueError("several processes fill one cache: pass the barrier that they wait at")
    layout = reference.layout()
    place = Path(folder) / FOLDER / layout.key
    names = {item: pair_hash(rows, item) for item in sorted(set(items))}
    distinct = {name: item for item, name in names.items()}
    # the longest first: if memory does not suffice, it shows at once
    order = sorted(distinct, key=lambda name: (-rows.lengths[distinct[name]], name))
    known = open_store(place, layout, distinct.keys())
    for number in [rank] if shares is None else shares:
        share = order[number::world]
        if missing := [distinct[name] for name in share if name not in known]:
            _build(place, layout, reference, rows, missing, names, shard_pairs, show=rank == 0)
    if barrier is not None:
        barrier()
    known = complete(
        known,
        lambda before: open_store(place, layout, distinct.keys(), before.shards),
        distinct.keys(),
        seconds=SEEN_WITHIN if world > 1 else 0.0,
    )
    if lost := len(distinct.keys() - known.keys()):
        raise UserError(
            f"{place} lacks {lost} of {len(distinct)} pairs whose log-probabilities were just "
            "written; check the disk"
        )
    values = np.full((len(rows), 2), np.nan, np.float32)
    for item, name in names.items():
        values[item] = known[name].numpy()
    return values


def pair_hash(rows: EncodedDataset, item: int) -> str:
    """Hashes (sha256) a pair's tokens, of which of them are learned, and of its pictures."""
    content = rows.tokens(item) | {"images": rows.image_hashes(item)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _build(
    place: Path,
    layout: Layout,
    reference: Reference,
    rows: EncodedDataset,
    items: list[int],
    names: dict[int, str],
    shard_pairs: int,
    *,
    show: bool,
) -> None:
    """Compute the log-probabilities of `items` and write them, shard after shard.

    Raises:
        UserError: the folder may not be written to, or its disk is full.
    """
    # Whole batches in every shard: a rerun then computes the very same batches, bit for bit.
    size = max(shard_pairs // reference.pairs_in_batch, 1) * reference.pairs_in_batch
    done: list[int] = []
    values: list[torch.Tensor] = []
    bar = tqdm(total=len(items), desc="reference", unit=" pairs", mininterval=1.0, disable=not show)
    with bar:
        for batch, found in reference.log_probs(rows, items):
            done += batch
            values.append(found)
            bar.update(len(batch))
            if len(done) >= size or done[-1] == items[-1]:
                try:
                    place.mkdir(parents=True, exist_ok=True)
                    write_shard(place, layout, [names[item] for item in done], values)
                except OSError as error:
                    raise UserError(
                        f"{place} cannot be written to ({error.strerror}); free some space and "
                        "start again, or choose another `features_dir`"
                    ) from error
                done, values = [], []
