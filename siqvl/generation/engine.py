"""Requests that come at any time -> one model that writes all of them side by side.

A thread of its own holds the model. Between two tokens it takes up what waits, as far as places are
free, so that no request waits for another to end (continuous batching).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from queue import SimpleQueue

import torch

from siqvl.data.encoded import Item
from siqvl.errors import UserError
from siqvl.generation.beginnings import PASS_TOKENS, Prompt
from siqvl.generation.loop import end_ids
from siqvl.generation.mixed import Mixed
from siqvl.generation.request import Finish, Piece, Sampling, Tell, TokenLogprob
from siqvl.generation.text_pieces import TextPieces
from siqvl.generation.writing import Token, Writing
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor

#: Pictures whose tokens are kept, as conversations come again with all of theirs.
KEPT_PICTURES = 64

_log = logging.getLogger(__name__)


class Busy(UserError):
    """As many requests wait as may."""


@dataclass(eq=False)
class Ticket:
    """A request that was taken: `cancel` ends it before its time."""

    number: int
    prompt: Prompt
    pixels: dict[Hashable, torch.Tensor]  # of its pictures, by their names
    sampling: Sampling
    tell: Tell
    pieces: TextPieces
    written: int = 0
    untold: list[TokenLogprob] = field(default_factory=list)
    cancelled: bool = False

    def cancel(self) -> None:
        """Ends the completion at its next token; nothing is told any more."""
        self.cancelled = True


class Engine:
    """A loaded model that answers requests as they come.

    Args:
        places: completions in the making at once.
        waiting: requests that may wait for one.
        max_length: tokens of a prompt and its completion together; memory for keys and values is at
            most `places` times as much.
    """

    def __init__(
        self,
        model: SiQVLForConditionalGeneration,
        processor: SiQVLProcessor,
        *,
        places: int,
        waiting: int,
        max_length: int | None = None,
    ) -> None:
        reads = model.config.text_config.max_position_embeddings
        self.max_length = min(max_length or reads, reads)
        self._model, self._processor = model, processor
        self._places, self._room = places, waiting
        self._ends = end_ids(model, processor.tokenizer.eos_token_id)
        self._numbers = count()
        self._waiting: deque[Ticket] = deque()
        self._running: dict[int, Ticket] = {}
        self._pictures: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._start_anew()
        self._thread = threading.Thread(target=self._run, name="siqvl engine", daemon=True)
        self._thread.start()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> int:
        """Completions in the making."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Requests that wait for a place."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether requests are still taken and answered."""
        return not self._closed and self._thread.is_alive()

    def submit(self, item: Item, sampling: Sampling, tell: Tell) -> Ticket:
        """Takes a request; pictures are made the tower's pixels here, in the caller's thread.

        Args:
            item: `input_ids`, and `images` (decoded) or their `pixel_values`
                [images, 3, image_size, image_size].
            tell: called with every piece, by the engine's thread, for which it must not wait.

        Raises:
            Busy: as many requests wait as may.
            UserError: more tokens than `max_length`, or pictures and placeholders that differ.
        """
        prompt, pixels = self._prompt(item)
        taken = len(prompt.ids) + sampling.max_new_tokens
        if taken > self.max_length:
            raise UserError(
                f"conversation and pictures take {len(prompt.ids):,} tokens; with the "
                f"{sampling.max_new_tokens:,} of an answer that is more than the "
                f"{self.max_length:,} that are read and written here"
            )
        pieces = TextPieces(self._processor, sampling.stop)
        with self._changed:
            if self._closed:
                raise Busy("this server is stopping; ask again")
            free = self._places - len(self._running)
            if len(self._waiting) >= self._room + free:
                self._waiting = deque(one for one in self._waiting if not one.cancelled)
            if len(self._waiting) >= self._room + free:
                raise Busy(f"{len(self._waiting):,} requests wait already; ask again later")
            ticket = Ticket(next(self._numbers), prompt, pixels, sampling, tell, pieces)
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def stream(self, item: Item, sampling: Sampling) -> Iterator[Piece]:
        """Yields the pieces of one completion; who stops listening cancels it.

        Raises:
            UserError: as `submit`.
        """
        pieces: SimpleQueue[Piece] = SimpleQueue()
        ticket = self.submit(item, sampling, pieces.put)
        try:
            while True:
                piece = pieces.get()
                yield piece
                if piece.finish:
                    return
        finally:
            ticket.cancel()

    def close(self) -> None:
        """Ends the thread; what is not finished is told that it was cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _prompt(self, item: Item) -> tuple[Prompt, dict[Hashable, torch.Tensor]]:
        """What the model reads; equal pictures have equal names, whoever sends them."""
        pixels = item.get("pixel_values")
        if pixels is None and item.get("images"):
            found = self._processor.image_processor(images=item["images"], return_tensors="pt")
            pixels = found["pixel_values"]
        some: Sequence[torch.Tensor] = [] if pixels is None else list(pixels)
        token = self._model.config.image_token_id
        placeholders = sum(one == token for one in item["input_ids"])
        wanted = len(some) * self._processor.num_image_tokens
        if placeholders != wanted:
            raise UserError(
                f"the conversation has {placeholders} placeholders {self._processor.image_token}, "
                f"and its {len(some)} pictures take {wanted}"
            )
        names = tuple(sha256(one.contiguous().numpy().tobytes()).digest() for one in some)
        prompt = Prompt.asked(item["input_ids"], names, token)
        return prompt, dict(zip(names, some, strict=True))

    def _start_anew(self) -> None:
        self._choose = Mixed()
        self._writing = Writing(self._model, self._places, end_ids=self._ends, choose=self._choose)

    def _run(self) -> None:
        while self._waits_for_work():
            try:
                with torch.inference_mode():
                    self._drop_cancelled()
                    if taken := self._take():
                        self._told(self._admit(taken))
                    if len(self._writing):
                        self._told(self._writing.step())
            except Exception:
                _log.exception("a pass of the model failed")
                self._end_all("error")
                self._start_anew()
        self._end_all("cancelled")

    def _waits_for_work(self) -> bool:
        with self._changed:
            while not (self._waiting or self._running or self._closed):
                self._changed.wait()
            return not self._closed

    def _drop_cancelled(self) -> None:
        gone = [one for one in self._running.values() if one.cancelled]
        self._writing.drop(one.number for one in gone)
        for one in gone:
            self._forget(one)

    def _take(self) -> list[Ticket]:
        """Takes up what waits: as many as there is room for, and as are read in one pass."""
        taken: list[Ticket] = []
        tokens = 0
        with self._changed:
            while self._waiting and len(taken) < self._writing.free and tokens < PASS_TOKENS:
                one = self._waiting.popleft()
                if one.cancelled:
                    continue
                taken.append(one)
                tokens += len(one.prompt.ids)
                self._running[one.number] = one
        return taken

    def _admit(self, taken: list[Ticket]) -> list[Token]:
        """Reads prompts; each ends up with the first token of its completion."""
        pixels = {name: one for ticket in taken for name, one in ticket.pixels.items()}
        for ticket in taken:
            self._choose.add(ticket.number, ticket.sampling)
            ticket.pixels = {}
        return self._writing.admit(
            [ticket.prompt for ticket in taken],
            lambda names: self._encode(names, pixels),
            numbers=[ticket.number for ticket in taken],
            limits=[ticket.sampling.max_new_tokens for ticket in taken],
        )

    def _encode(
        self, names: Sequence[Hashable], pixels: dict[Hashable, torch.Tensor]
    ) -> torch.Tensor:
        """The tokens of pictures, [pictures, tokens, hidden]; those seen lately are known."""
        unknown = [name for name in dict.fromkeys(names) if name not in self._pictures]
        if unknown:
            batch = torch.stack([pixels[name] for name in unknown]).to(self._model.device)
            made = self._model.get_image_features(batch, return_dict=True).pooler_output
            assert made is not None
            self._pictures.update(zip(unknown, made, strict=True))
        found = torch.stack([self._pictures[name] for name in names])
        for name in names:
            self._pictures.move_to_end(name)
        while len(self._pictures) > KEPT_PICTURES:
            self._pictures.popitem(last=False)
        return found

    def _told(self, tokens: Sequence[Token]) -> None:
        """Tells everyone what was written for them."""
        stopped = []
        for token in tokens:
            ticket = self._running[token.row]
            ticket.written += 1
            if ticket.sampling.top_logprobs is not None:
                ticket.untold.append(self._choose.logprobs[token.row])
            text = ticket.pieces.add(token.id)
            finish: Finish | None = None
            if ticket.pieces.stopped:
                finish = "stop"
                if not token.last:
                    stopped.append(token.row)
            elif token.last:
                text += ticket.pieces.end()
                finish = "stop" if token.id in self._ends or ticket.pieces.stopped else "length"
            if text or finish:
                self._say(ticket, text, finish)
        self._writing.drop(stopped)

    def _say(self, ticket: Ticket, text: str, finish: Finish | None) -> None:
        piece = Piece(text, ticket.untold, ticket.written, finish)
        ticket.untold = []
        if finish:
            self._forget(ticket)
        if ticket.cancelled:
            return
        try:
            ticket.tell(piece)
        except Exception:  # whoever listened is gone; the others go on
            _log.exception("an answer could not be handed over")
            ticket.cancel()

    def _forget(self, ticket: Ticket) -> None:
        self._running.pop(ticket.number, None)
        self._choose.remove(ticket.number)

    def _end_all(self, finish: Finish) -> None:
        """Ends what is in the making, and what waits if the thread ends."""
        with self._changed:
            ended = list(self._running.values())
            if self._closed:
                ended += self._waiting
                self._waiting.clear()
        for ticket in ended:
            self._say(ticket, ticket.pieces.end(), finish)
