"""Rows -> token ids and labels, computed by the same steps as a prompt at inference.

Loss is on the assistant's words and the end token `<|im_end|>` that follows them, nowhere else.
Prompt and completion are tokenised apart. The border lies after `assistant\\n`, or at a special
token, where no merge can reach over: the ids before it are exactly the ids that generation starts
from, and those after it the ids that generation has to produce.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from siqvl.data.encoded import IGNORED, Encoded, EncodedDataset, Sequences
from siqvl.data.schema import Message, Row, RowKind, message
from siqvl.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from siqvl.model.processing import SiQVLProcessor

END_TOKEN = "<|im_end|>"


def encode_sft(row: Row, processor: SiQVLProcessor) -> Encoded:
    """A supervised row.

    Raises:
        ValueError: the placeholders in the text are not as many as the images of the row.
    """
    return _encode(row, row["completion"], processor)


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
    return Encoded(_tokenize(text, processor, row), [], len(row["images"]))


def _encode(row: Row, completion: Sequence[Message], processor: SiQVLProcessor) -> Encoded:
    count = len(row["images"])
    turns = _with_images([*row["prompt"], *completion], count)
    input_ids: list[int] = []
    labels: list[int] = []
    done = ""  # text that is tokenised already
    for index in range(len(row["prompt"]), len(turns)):
        if turns[index]["role"] != "assistant":
            continue
        opened = _render(turns[:index], processor, open_turn=True)
        closed = _render(turns[: index + 1], processor, open_turn=False)
        end = closed.rindex(END_TOKEN) + len(END_TOKEN)
        if not (opened.startswith(done) and closed.startswith(opened) and end > len(opened)):
            raise ValueError("the chat template does not render a conversation turn after turn")
        context = _tokenize(opened[len(done) :], processor, row if not done else None)
        answer = _tokenize(closed[len(opened) : end], processor, None)
        input_ids += context + answer
        labels += [IGNORED] * len(context) + answer
        done = closed[:end]
    return Encoded(input_ids, labels, count)


def _with_images(messages: Sequence[Message], count: int) -> list[dict[str, Any]]:
    """Content as lists of items, the images before the text of the first user message."""
    turns: list[dict[str, Any]] = [
        {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
        for turn in messages
    ]
    if count:
        first = next(turn for turn in turns if turn["role"] == "user")
        first["content"][:0] = [{"type": "image"} for _ in range(count)]
    return turns


def _render(turns: list[dict[str, Any]], processor: SiQVLProcessor, *, open_turn: bool) -> str:
    return processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=open_turn)


def _tokenize(text: str, processor: SiQVLProcessor, row: Row | None) -> list[int]:
    """Ids of rendered text; `row` is given for the part that holds its images."""
    expected = len(row["images"]) if row else 0
    found = text.count(processor.image_token)
    if found != expected:
        raise ValueError(
            f"row {row['id'] if row else '(later turn)'} has {expected} images but {found} image "
            "placeholders; literal image tokens must be neutralised when data is prepared"
        )
    if found:
        text = text.replace(
            processor.image_token, processor.image_token * processor.num_image_tokens
        )
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_dataset(
    dataset: Dataset,
    processor: SiQVLProcessor,
    *,
    kind: RowKind,
    max_length: int,
    prompt_suffix: str = "",
) -> EncodedDataset:
    """Encode all rows; those longer than `max_length` tokens are left out, never cut.

    Raises:
        UserError: nothing is left.
        ValueError: a row's placeholders and images differ in number.
    """
    from tqdm import tqdm

    encode = _encoder(kind, processor, prompt_suffix)
    kept: list[tuple[Encoded, ...]] = []
    rows: list[int] = []
    shortest = None
    progress = tqdm(
        _texts(dataset), total=len(dataset), desc="encode", unit=" rows", mininterval=1.0
    )
    for index, row in enumerate(progress):
        sides = encode(row)
        length = max(map(len, sides))
        shortest = min(shortest or length, length)
        if length <= max_length:
            kept.append(sides)
            rows.append(index)
    if not kept:
        raise UserError(
            f"none of {len(dataset)} rows fits into max_length {max_length}: the shortest takes "
            f"{shortest} tokens; raise `max_length`"
        )
    names = ("chosen", "rejected") if kind is RowKind.PREFERENCE else ("",)
    sequences = {
        name: Sequences([sides[side] for sides in kept]) for side, name in enumerate(names)
    }
    num_images = [sides[0].num_images for sides in kept]
    return EncodedDataset(dataset, kind, sequences, rows, num_images, len(dataset) - len(kept))


def _encoder(
    kind: RowKind, processor: SiQVLProcessor, prompt_suffix: str
) -> Callable[[Row], tuple[Encoded, ...]]:
    if kind is RowKind.SFT:
        return lambda row: (encode_sft(row, processor),)
    if kind is RowKind.PREFERENCE:
        return lambda row: encode_preference(row, processor)
    return lambda row: (encode_prompt(row, processor, suffix=prompt_suffix),)


def _texts(dataset: Dataset) -> Iterator[Row]:
    """Rows with as many Nones as they have images: none is decoded, or even copied."""
    import pyarrow.compute as pc

    for table in dataset.with_format("arrow").iter(batch_size=256):
        counts = pc.list_value_length(table["images"]).to_pylist()
        for row, count in zip(table.drop_columns("images").to_pylist(), counts, strict=True):
            yield row | {"images": [None] * count}
