"""Rows -> token ids and labels, computed by the same steps as a prompt at inference.

Loss is on the assistant's words and the end token `<|im_end|>` that follows them, nowhere else.
Prompt and completion are tokenised apart, at the border after `assistant\\n`: the ids before it are
exactly the ids that generation starts from, and those after it the ids that generation has to
produce. (Tokenised together, an answer that begins with a line break would grow into the prompt's.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.compute as pc
from datasets import Dataset
from tqdm import tqdm

from siqvl.data.encoded import IGNORED, Encoded, EncodedDataset, Sequences
from siqvl.data.image_tokens import IMAGE_MARK, count_marks, without_marks
from siqvl.data.processes import in_order, processes_with
from siqvl.data.schema import Message, Row, RowKind, message
from siqvl.errors import UserError
from siqvl.model.processing import SiQVLProcessor

Turns = Literal["last", "all"]

END_TOKEN = "<|im_end|>"
#: The variable of templates that drop a model's thoughts once the next question is there.
KEEP_THINKING = "keep_thinking"
#: Reasons for which a row is left out.
TOO_MANY_IMAGES = "more images than max_images"
TOO_LONG = "longer than max_length"
NO_PICTURE = "no picture: the language model does not learn"
#: Below, starting processes (each imports transformers) takes longer than they save.
PARALLEL_ROWS = 20_000


def encode_sft(row: Row, processor: SiQVLProcessor, *, learn_turns: Turns = "last") -> Encoded:
    """A supervised row.

    Args:
        learn_turns: `all` puts loss on the assistant's turns in the prompt as well, but for one
            that opens the conversation: no prompt leads to it. Of a model that thinks, blocks of
            thoughts before earlier answers stay then, which its template drops otherwise.

    Raises:
        ValueError: the placeholders in the text are not as many as the images of the row.
        UserError: an answer brings thoughts that `model.thinking` does not ask for.
    """
    return _encode(row, row["completion"], processor, learn_turns)


def encode_preference(row: Row, processor: SiQVLProcessor) -> tuple[Encoded, Encoded]:
    """The chosen and the rejected conversation; both begin with the same prompt ids.

    Raises:
        ValueError: the placeholders in the text are not as many as the images of the row.
    """
    return _encode(row, row["chosen"], processor), _encode(row, row["rejected"], processor)


def encode_prompt(row: Row, processor: SiQVLProcessor, *, suffix: str = "") -> Encoded:
    """The prompt alone, up to where the answer begins; a question row becomes one user message.

    Args:
        suffix: appended to the last user message (a benchmark's `prompt_suffix`).

    Raises:
        ValueError: the placeholders in the text are not as many as the images of the row.
    """
    prompt = row["prompt"] if "prompt" in row else [message("user", row["question"])]
    prompt = [*prompt[:-1], message(prompt[-1]["role"], prompt[-1]["content"] + suffix)]
    text = _render(_with_images(prompt, len(row["images"])), processor, open_turn=True)
    _check_placeholders(row, text, processor)
    return Encoded(_tokenize(text, processor), [], len(row["images"]))


def shown_with(row: Row, images: int) -> Row:
    """A row as it is put to a model with so many pictures, whichever they are.

    Where these are not as many as its text marks, they stand before it, and the marks are left out:
    without its pictures, nobody is asked about `<image>`.
    """
    asked = row["prompt"] if "prompt" in row else [message("user", row["question"])]
    marks = count_marks(turn["content"] for turn in asked if turn["role"] == "user")
    shown = {**row, "images": [None] * images}
    if marks in (0, images):
        return shown
    bare = [
        message("user", without_marks(turn["content"])) if turn["role"] == "user" else turn
        for turn in asked
    ]
    return shown | ({"prompt": bare} if "prompt" in row else {"question": bare[0]["content"]})


def _encode(
    row: Row, completion: Sequence[Message], processor: SiQVLProcessor, learn_turns: Turns = "last"
) -> Encoded:
    turns = _with_images([*row["prompt"], *completion], len(row["images"]))
    input_ids: list[int] = []
    labels: list[int] = []
    done = ""  # text that is tokenised already
    for index in range(len(row["prompt"]) if learn_turns == "last" else 0, len(turns)):
        if turns[index]["role"] != "assistant" or index == 0:
            continue
        keep = learn_turns == "all"
        opened = _render(turns[:index], processor, open_turn=True, keep_thinking=keep)
        closed = _render(turns[: index + 1], processor, open_turn=False, keep_thinking=keep)
        end = closed.rindex(END_TOKEN) + len(END_TOKEN)
        if not (opened.startswith(done) and closed.startswith(opened) and end > len(opened)):
            raise UserError(
                f"row {row['id']}: the chat template does not render its conversation turn after "
                "turn; if an answer has <think> … </think>, set model.thinking: true"
            )
        context = _tokenize(opened[len(done) :], processor)
        answer = _tokenize(closed[len(opened) : end], processor)
        input_ids += context + answer
        labels += [IGNORED] * len(context) + answer
        done = closed[:end]
    _check_placeholders(row, done, processor)
    return Encoded(input_ids, labels, len(row["images"]))


def _with_images(messages: Sequence[Message], count: int) -> list[dict[str, Any]]:
    """Content as lists of items: images where the user's turns mark them, or before the first."""
    turns: list[dict[str, Any]] = [
        {"role": turn["role"], "content": _items(turn["role"], turn["content"])}
        for turn in messages
    ]
    asked = [turn for turn in turns if turn["role"] == "user"]
    if count and not count_marks(turn["content"] for turn in messages if turn["role"] == "user"):
        asked[0]["content"][:0] = [{"type": "image"} for _ in range(count)]
    return turns


def _items(role: str, content: str) -> list[dict[str, Any]]:
    if role != "user" or IMAGE_MARK not in content:
        return [{"type": "text", "text": content}]
    items: list[dict[str, Any]] = []
    for number, text in enumerate(content.split(IMAGE_MARK)):
        items += [{"type": "image"}] if number else []
        items += [{"type": "text", "text": text}] if text else []
    return items


def _render(
    turns: list[dict[str, Any]],
    processor: SiQVLProcessor,
    *,
    open_turn: bool,
    keep_thinking: bool = False,
) -> str:
    options: dict[str, Any] = {}
    # transformers hands what a template does not name to the processor, and says so each time
    if keep_thinking and KEEP_THINKING in str(processor.chat_template):
        options = {KEEP_THINKING: True}
    return processor.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=open_turn, **options
    )


def _check_placeholders(row: Row, text: str, processor: SiQVLProcessor) -> None:
    found = text.count(processor.image_token)
    if found != len(row["images"]):
        raise ValueError(
            f"row {row['id']} has {len(row['images'])} images but {found} image placeholders; "
            "literal image tokens must be neutralised, and marks counted, when data is prepared"
        )


def _tokenize(text: str, processor: SiQVLProcessor) -> list[int]:
    """Ids of rendered text, its placeholders grown to the tokens that an image takes.

    They grow as ids, not as text, on which a tokenizer would spend most of its time; nothing merges
    across a special token.
    """
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    if processor.image_token not in text:
        return ids
    image, count = processor.image_token_id, processor.num_image_tokens
    return [one for i in ids for one in ([image] * count if i == image else (i,))]


def encode_dataset(
    dataset: Dataset,
    processor: SiQVLProcessor,
    *,
    kind: RowKind,
    max_length: int,
    max_images: int | None = None,
    learn_turns: Turns = "last",
    prompt_suffix: str = "",
    needs_picture: bool = False,
    processes: int = 1,
) -> EncodedDataset:
    """Encode all rows; those over a limit are left out and counted by reason, never cut.

    Args:
        max_length: tokens of a row, those of its images included.
        max_images: images of a row.
        learn_turns: see `encode_sft`; a preference row always learns its last turn alone.
        prompt_suffix: see `encode_prompt`.
        needs_picture: leave out rows without one: where the language model is frozen they lead to
            no weight that learns.
        processes: share a large data set out to so many; the result is the same.

    Raises:
        UserError: nothing is left, or a process died.
        ValueError: a row's placeholders and images differ in number.
    """
    names = ("chosen", "rejected") if kind is RowKind.PREFERENCE else ("",)
    sequences = {name: Sequences() for name in names}
    rows: list[int] = []
    num_images: list[int] = []
    left_out: Counter[str] = Counter()
    shortest = None
    encoder = RowEncoder(processor, kind, max_images, learn_turns, prompt_suffix, needs_picture)
    encoded = encoder.all(dataset, processes)
    progress = tqdm(encoded, total=len(dataset), desc="encode", unit=" rows", mininterval=1.0)
    for index, sides in enumerate(progress):
        if isinstance(sides, str):
            left_out[sides] += 1
            continue
        length = max(map(len, sides))
        shortest = min(shortest or length, length)
        if length > max_length:
            left_out[TOO_LONG] += 1
            continue
        for into, side in zip(sequences.values(), sides, strict=True):
            into.append(side)
        rows.append(index)
        num_images.append(sides[0].num_images)
    if not rows:
        raise UserError(_nothing_left(len(dataset), left_out, shortest, max_length, max_images))
    return EncodedDataset(dataset, kind, sequences, rows, num_images, dict(left_out))


def _nothing_left(
    count: int,
    left_out: Counter[str],
    shortest: int | None,
    max_length: int,
    max_images: int | None,
) -> str:
    without = left_out[NO_PICTURE]
    if count and without == count:
        return (
            f"none of {count} rows has a picture, and without one nothing of what this stage "
            "trains can learn: take rows with pictures, or add language_model to `trainable`"
        )
    others = f" ({without} more have no picture, which this stage needs)" if without else ""
    if shortest is None:
        return (
            f"all of {count - without} rows have more than max_images {max_images} images{others}; "
            "raise it"
        )
    return (
        f"none of {count - without} rows fits into max_length {max_length}: the shortest takes "
        f"{shortest} tokens{others}; raise `max_length`"
    )


Sides = tuple[Encoded, ...]  # of a pair two, otherwise one


@dataclass(frozen=True)
class RowEncoder:
    """Encodes rows of one kind; picklable, for worker processes."""

    processor: SiQVLProcessor
    kind: RowKind
    max_images: int | None
    learn_turns: Turns
    prompt_suffix: str
    needs_picture: bool = False

    def all(self, dataset: Dataset, processes: int) -> Iterator[Sides | str]:
        """Every row of a data set in order; of one that is left out the reason."""
        if processes == 1 or len(dataset) < PARALLEL_ROWS:
            for rows in _texts(dataset):
                yield from self.rows(rows)
            return
        chunks = ((rows,) for rows in _texts(dataset))
        with processes_with(self, processes) as pool:
            for encoded in in_order(pool, RowEncoder.rows, chunks, ahead=2 * processes):
                yield from encoded

    def rows(self, rows: list[Row]) -> list[Sides | str]:
        """Some rows, whose images need not be there, only their number."""
        return [self._left_out(len(row["images"])) or self.row(row) for row in rows]

    def _left_out(self, images: int) -> str | None:
        """Why a row of so many images is left out; None for one that is encoded."""
        if self.max_images is not None and images > self.max_images:
            return TOO_MANY_IMAGES
        return NO_PICTURE if self.needs_picture and not images else None

    def row(self, row: Row) -> Sides:
        """One row."""
        if self.kind is RowKind.SFT:
            return (encode_sft(row, self.processor, learn_turns=self.learn_turns),)
        if self.kind is RowKind.PREFERENCE:
            return encode_preference(row, self.processor)
        return (encode_prompt(row, self.processor, suffix=self.prompt_suffix),)


def _texts(dataset: Dataset) -> Iterator[list[Row]]:
    """Chunks of rows, with as many Nones as they have images: none is decoded, or even copied."""
    for table in dataset.with_format("arrow").iter(batch_size=256):
        counts = pc.list_value_length(table["images"]).to_pylist()
        texts = table.select([name for name in table.column_names if not name.startswith("image")])
        yield [
            row | {"images": [None] * count}
            for row, count in zip(texts.to_pylist(), counts, strict=True)
        ]
