"""Which knob to turn when a stage does not fit, with the memory that is needed then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from siqvl.estimate.results import Turn
from siqvl.recipe import Adapter, SFTStage

RANK = 16
#: What is asked of a setting: keys of the stage, and processes of FSDP or None -> bytes.
Measure = Callable[[dict[str, Any], int | None], int]


def turns(
    stage: SFTStage, room: int, measure: Measure, *, first: bool, sharded: bool
) -> list[Turn]:
    """Single knobs, and two of them together; each with what is needed.

    Args:
        room: bytes that may be taken.
        first: stage 1, which has no adapters.
        sharded: FSDP is in use already.
    """
    found = []
    for setting, changes, processes in _knobs(stage, first=first, sharded=sharded):
        size = measure(changes, processes)
        found.append(Turn(setting=setting, bytes=size, fits=size <= room))
    if not sharded:
        for processes in (2, 4, 8):
            size = measure({}, processes)
            name = (
                "distributed.enabled=true distributed.strategy=fsdp "
                f"distributed.processes={processes}"
            )
            turn = Turn(setting=name, bytes=size, fits=size <= room)
            if turn.fits or processes == 8:
                found.append(turn)
                break
    return found


def _knobs(
    stage: SFTStage, *, first: bool, sharded: bool
) -> Iterator[tuple[str, dict[str, Any], int | None]]:
    checkpointing = {"gradient_checkpointing": True}
    if not stage.gradient_checkpointing:
        yield "gradient_checkpointing=true", checkpointing, None
    if stage.batch_size > 1:
        more = stage.accumulation * stage.batch_size
        small = {"batch_size": 1, "accumulation": more}
        yield f"batch_size=1 accumulation={more}", small, None
        if not stage.gradient_checkpointing:
            name = f"batch_size=1 accumulation={more} gradient_checkpointing=true"
            yield name, small | checkpointing, None
    if stage.head_chunk > 256:
        yield "head_chunk=256", {"head_chunk": 256}, None
    if first or sharded or "language_model" not in stage.trainable:
        return
    if stage.adapter is None:
        yield f"adapter.rank={RANK}", {"adapter": Adapter(rank=RANK)}, None
    if stage.adapter is None or stage.adapter.quantize == "none":
        rank = stage.adapter.rank if stage.adapter else RANK
        quantized = (stage.adapter or Adapter(rank=rank)).model_copy(update={"quantize": "nf4"})
        yield f"adapter.rank={rank} adapter.quantize=nf4", {"adapter": quantized}, None
