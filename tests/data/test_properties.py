"""Whatever the rows: from their text to the batches of a run, every token is where it belongs."""

import re
import unicodedata
from collections import Counter

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from siqvl.data.batching import BatchPlan
from siqvl.data.collate import PackedCollator
from siqvl.data.encode import encode_dataset
from siqvl.data.mixture import Mixture
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from tests.data.made_rows import conversation, stored

MAX_LENGTH, MAX_IMAGES = 160, 2
PACK_LENGTH, PACK_IMAGES = 200, 3

# Any Unicode but lone surrogates; control tokens are broken up when rows are prepared.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() and "<|" not in text
)
turns = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)
many_rows = st.lists(st.tuples(st.integers(0, 3), turns), min_size=1, max_size=12)


OPENED = "<|im_start|>assistant\n"  # where generation begins


def written_out(row: dict, processor, learn_turns: str) -> list[int]:
    """The ids of a row by transformers' own path, with its images (the oracle of lengths).

    An answer is tokenised apart from what generation starts from: one that begins with a line break
    would grow together with the one before it.
    """
    first, *others = [*row["prompt"], *row["completion"]]
    items = [{"type": "image"}] * len(row["images"])
    first = first | {"content": [*items, {"type": "text", "text": first["content"]}]}
    text = processor.apply_chat_template([first, *others]).removesuffix("\n")
    text = text.replace(processor.image_token, processor.image_token * processor.num_image_tokens)
    parts = re.split(f"(?<={re.escape(OPENED)})", text)
    if learn_turns == "last":
        parts = ["".join(parts[:-1]), parts[-1]]
    return [token for part in parts for token in processor.tokenizer(part)["input_ids"]]


def answers(row: dict, learn_turns: str, *, composed: bool) -> str:
    """What the assistant says; Qwen's tokenizer composes characters first (Unicode NFC)."""
    spoken = row["completion"] if learn_turns == "last" else [*row["prompt"], *row["completion"]]
    said = [m["content"] for m in spoken if m["role"] == "assistant"]
    if composed:
        said = [unicodedata.normalize("NFC", text) for text in said]
    return "".join(text + "<|im_end|>" for text in said)


def samples_of(batch: dict):
    """The samples of packed sequences, (ids, labels) each, by where positions start again."""
    for ids, positions, labels in zip(
        *(batch[key].tolist() for key in ("input_ids", "position_ids", "labels")), strict=True
    ):
        starts = [i for i, position in enumerate(positions) if position == 0]
        for a, b in zip(starts, [*starts[1:], len(ids)], strict=True):
            assert positions[a:b] == list(range(b - a))
            yield ids[a:b], labels[a:b]


@pytest.mark.parametrize("name", ["processor", "real_processor"])
@pytest.mark.parametrize("learn_turns", ["last", "all"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=many_rows, seed=st.integers(0, 2**31))
@example(content=[(0, [("0", "\n0"), ("0", "\n\n")])], seed=0)
@example(content=[(0, [("0", "\uf900")])], seed=0)  # NFC makes another character of it
def test_from_rows_to_packed_batches(request, name, learn_turns, content, seed):
    processor = request.getfixturevalue(name)
    rows = [conversation(number, *one) for number, one in enumerate(content)]
    ids = [written_out(row, processor, learn_turns) for row in rows]
    many = [index for index, row in enumerate(rows) if len(row["images"]) > MAX_IMAGES]
    fitting = [
        index for index in range(len(rows)) if index not in many and len(ids[index]) <= MAX_LENGTH
    ]
    limits = {"max_length": MAX_LENGTH, "max_images": MAX_IMAGES, "learn_turns": learn_turns}
    if not fitting:
        with pytest.raises(UserError, match=r"max_length 160|max_images 2"):
            encode_dataset(stored(rows), processor, kind=RowKind.SFT, **limits)
        return
    encoded = encode_dataset(stored(rows), processor, kind=RowKind.SFT, **limits)

    # rows over a budget are left out and counted, the others are whole
    assert encoded.rows == fitting
    assert [encoded[item]["input_ids"] for item in range(len(encoded))] == [ids[i] for i in fitting]
    assert encoded.left_out.get("more images than max_images", 0) == len(many)
    assert sum(encoded.left_out.values()) == len(rows) - len(fitting)

    mixture = Mixture([0] * len(fitting), encoded.lengths, names=["made"], weights=[1.0], seed=seed)
    plan = BatchPlan(
        mixture,
        encoded.num_images,
        batching="packed",
        batch_size=1,
        epochs=1,
        pack_length=PACK_LENGTH,
        pack_images=PACK_IMAGES,
    )
    collate = PackedCollator(processor)
    shown: Counter[int] = Counter()
    for step in range(plan.steps):
        (pack,) = plan.batch(step)
        assert sum(encoded.lengths[item] for item in pack) <= PACK_LENGTH
        assert sum(encoded.num_images[item] for item in pack) <= PACK_IMAGES
        batch = collate([[encoded[item] for item in pack]])
        assert len(batch.get("pixel_values", [])) == sum(encoded.num_images[i] for i in pack)
        for item, (sample, labels) in zip(pack, samples_of(batch), strict=True):
            shown[item] += 1
            row = rows[fitting[item]]
            learned = [label for label in labels if label != -100]
            # every answer token once, nothing else; a label is the token at its own place
            assert processor.tokenizer.decode(learned) == answers(
                row, learn_turns, composed=name == "real_processor"
            )
            assert all(a in (-100, b) for a, b in zip(labels, sample, strict=True))
            assert labels[0] == -100
            assert processor.image_token_id not in learned
            wanted = len(row["images"]) * processor.num_image_tokens
            assert sample.count(processor.image_token_id) == wanted
    assert shown == dict.fromkeys(range(len(fitting)), 1)
