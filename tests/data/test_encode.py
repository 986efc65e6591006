"""Loss lies on the answer and its end token, and on nothing else."""

import pytest
from datasets import concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from siqvl.data import encode
from siqvl.data.encode import (
    encode_dataset,
    encode_preference,
    encode_prompt,
    encode_sft,
    shown_with,
)
from siqvl.data.preparation.prepare import load_prepared, prepare
from siqvl.data.schema import REASONING_PROMPT, RowKind, message, reasoned_answer, sft_row
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source
from tests.data.made_rows import conversation, stored

MULTI_TURN = [
    message("user", "What shape?"),
    message("assistant", "a circle"),
    message("user", "What color?"),
]


def learned(encoded, processor) -> str:
    """The text that carries loss."""
    ids = [i for i, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != -100]
    assert ids == [label for label in encoded.labels if label != -100]
    return processor.tokenizer.decode(ids)


COT = reasoned_answer("red circle: 1; blue square: 1.", "1")


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        ("What color?", "blue", "blue<|im_end|>"),
        ("How many?" + REASONING_PROMPT, COT, COT + "<|im_end|>"),
        (MULTI_TURN, "blue", "blue<|im_end|>"),
        ([message("system", "Be brief."), message("user", "Hi")], "yes", "yes<|im_end|>"),
        (
            "Hi",
            [message("assistant", "one"), message("user", "more"), message("assistant", "two")],
            "one<|im_end|>two<|im_end|>",
        ),
    ],
)
@pytest.mark.parametrize("images", [0, 1, 2])
def test_loss_is_on_the_answer_and_its_end_token(processor, prompt, completion, expected, images):
    row = sft_row("r", [b""] * images, prompt, completion, source="s")
    encoded = encode_sft(row, processor)
    assert learned(encoded, processor) == expected
    assert encoded.input_ids.count(processor.image_token_id) == images * processor.num_image_tokens
    assert processor.image_token_id not in encoded.labels
    assert encoded.labels[-1] == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert encoded.num_images == images


@pytest.mark.parametrize("images", [0, 1, 2])
@pytest.mark.parametrize("name", ["processor", "real_processor"])
def test_ids_are_those_of_the_processor_itself(request, name, images):
    """The oracle: transformers' own path from messages to ids, which inference takes."""
    processor = request.getfixturevalue(name)
    from PIL import Image

    row = sft_row("r", [b""] * images, MULTI_TURN, "a blue\n\n one", source="s")
    items = [{"type": "image"}] * images + [{"type": "text", "text": "What shape?"}]
    messages = [{"role": "user", "content": items}, *MULTI_TURN[1:]]
    pictures = [Image.new("RGB", (16, 16))] * images or None
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    prompt = processor(text=text, images=pictures)["input_ids"][0]
    full = processor.apply_chat_template([*messages, *row["completion"]]).removesuffix("\n")
    whole = processor(text=full, images=pictures)["input_ids"][0]

    assert encode_prompt(row, processor).input_ids == prompt
    assert encode_sft(row, processor).input_ids == whole
    assert encode_sft(row, processor).input_ids[: len(prompt)] == prompt


def typed(*items: str) -> list[dict[str, str]]:
    """Content as one writes it by hand at inference; "" is a picture."""
    return [{"type": "text", "text": item} if item else {"type": "image"} for item in items]


#: What users say with marks, and the same by hand as typed parts.
INTERLEAVED = {
    "in the second turn": [
        ("<image>What color is this?", typed("", "What color is this?")),
        ("<image>And this?", typed("", "And this?")),
    ],
    "inside": [
        ("A: <image> B: <image> Which is red?", typed("A: ", "", " B: ", "", " Which is red?"))
    ],
    "behind": [("Look:<image><image>", typed("Look:", "", ""))],
    "later": [("Hello.", typed("Hello.")), ("This:<image>", typed("This:", ""))],
    "nothing but a picture": [("<image>", typed("")), ("What?", typed("What?"))],
    "in front": [("Which?", typed("", "", "Which?"))],  # without marks
}


@pytest.mark.parametrize("name", ["processor", "real_processor"])
@pytest.mark.parametrize("turns", INTERLEAVED.values(), ids=INTERLEAVED)
def test_pictures_stand_where_typed_parts_have_them(request, name, turns):
    """The oracle: parts written by hand, by transformers' own path, as at inference."""
    from PIL import Image

    processor = request.getfixturevalue(name)
    said = "it says <image>, and 2"  # text, as an assistant says it
    marks, parts = ([], [])
    for asked, by_hand in turns:
        marks += [message("user", asked), message("assistant", said)]
        parts += [
            {"role": "user", "content": by_hand},
            {"role": "assistant", "content": typed(said)},
        ]
    images = sum(item["type"] == "image" for turn in parts for item in turn["content"])
    pictures = [Image.new("RGB", (16, 16))] * images

    def by_transformers(messages, **options):
        text = processor.apply_chat_template(messages, **options)
        return processor(text=text.removesuffix("\n") if not options else text, images=pictures)

    row = sft_row("r", [b""] * images, marks[:-1], marks[-1:], source="s")
    prompt = by_transformers(parts[:-1], add_generation_prompt=True)["input_ids"][0]
    whole = by_transformers(parts)["input_ids"][0]
    assert encode_prompt(row, processor).input_ids == prompt
    for learn_turns in ("last", "all"):
        assert encode_sft(row, processor, learn_turns=learn_turns).input_ids == whole
    chosen, rejected = encode_preference(
        {**row, "chosen": marks[-1:], "rejected": [message("assistant", "no")]}, processor
    )
    assert chosen.input_ids == whole
    assert rejected.input_ids[: len(prompt)] == prompt
    if len(turns) == 1:
        question = {"id": "q", "question": turns[0][0], "images": row["images"]}
        assert encode_prompt(question, processor).input_ids == prompt


def test_a_turn_sees_no_picture_of_a_later_turn(processor):
    turns = [message("user", "<image>One?"), message("assistant", "1"), message("user", "<image>?")]
    row = sft_row("r", [b"", b""], turns, "2", source="s")
    first, second = processor.tokenizer.decode(encode_sft(row, processor).input_ids).split("1<|im_")
    image = processor.image_token * processor.num_image_tokens
    assert (first.count(image), second.count(image)) == (1, 1)


@pytest.mark.parametrize("images", [0, 1, 3])
def test_marks_and_pictures_that_differ_are_refused(processor, images):
    row = sft_row("r", [b""] * images, "<image> or <image>?", "yes", source="s")
    with pytest.raises(ValueError, match=f"row r has {images} images but 2 image placeholders"):
        encode_sft(row, processor)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [(2, typed("A: ", "", " or ", "", "?")), (0, typed("A: or ?")), (1, typed("", "A: or ?"))],
)
def test_a_question_is_put_without_its_pictures_or_with_others(processor, shown, expected):
    """The baselines: no picture, and the pictures of another question."""
    question = {"id": "q", "question": "A: <image> or <image>?", "images": [b"", b""]}
    prompt = {"id": "q", "prompt": [message("user", question["question"])], "images": [b"", b""]}
    text = processor.apply_chat_template(
        [{"role": "user", "content": expected}], add_generation_prompt=True
    )
    text = text.replace(processor.image_token, processor.image_token * processor.num_image_tokens)
    for row in (question, prompt):
        encoded = encode_prompt(shown_with(row, shown), processor)
        assert processor.tokenizer.decode(encoded.input_ids) == text


def test_a_preference_pair_shares_its_prompt(processor, make_row):
    row = make_row(RowKind.PREFERENCE)
    chosen, rejected = encode_preference(row, processor)
    prompt = encode_prompt(row, processor).input_ids
    assert learned(chosen, processor) == "blue<|im_end|>"
    assert learned(rejected, processor) == "red<|im_end|>"
    assert chosen.input_ids[: len(prompt)] == rejected.input_ids[: len(prompt)] == prompt


def test_a_question_becomes_a_prompt_with_its_suffix(processor, make_row):
    encoded = encode_prompt(make_row(RowKind.EVALUATION), processor, suffix=" Be brief.")
    text = processor.tokenizer.decode(encoded.input_ids)
    assert text.endswith("What color? Be brief.<|im_end|>\n<|im_start|>assistant\n")
    assert encoded.labels == []


def test_a_placeholder_without_an_image_is_refused(processor, make_row):
    row = make_row(prompt=[message("user", "what is <|image_pad|>?")])
    with pytest.raises(ValueError, match="row made/0 has 1 images but 2 image placeholders"):
        encode_sft(row, processor)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    sources = [Source(kind="shapes", max_samples=24)]
    for kind in RowKind:
        prepare(sources, kind, out / kind, data=DataPrep(), seed=0)
    return out


@pytest.mark.parametrize("kind", list(RowKind))
def test_the_data_set_holds_what_the_rows_encode_to(prepared, processor, kind):
    dataset, _ = load_prepared(prepared / kind, kind)
    encoded = encode_dataset(dataset, processor, kind=kind, max_length=1000)
    assert len(encoded) == 24
    assert encoded.left_out == {}
    assert encoded.num_images == [1] * 24
    item, row = encoded[5], dataset[5]
    assert item["images"][0].tobytes() == row["images"][0].tobytes()
    if kind is RowKind.SFT:
        one = encode_sft(row, processor)
        assert (item["input_ids"], item["labels"]) == (one.input_ids, one.labels)
        assert encoded.lengths[5] == len(one)
    elif kind is RowKind.PREFERENCE:
        pair = encode_preference(row, processor)
        for side, one in zip(("chosen", "rejected"), pair, strict=True):
            assert item[f"{side}_input_ids"] == one.input_ids
            assert item[f"{side}_labels"] == one.labels
        assert encoded.lengths[5] == max(map(len, pair))
    else:
        assert item["input_ids"] == encode_prompt(row, processor).input_ids
        assert "labels" not in item


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
def test_several_processes_encode_what_one_does(prepared, processor, monkeypatch):
    monkeypatch.setattr(encode, "PARALLEL_ROWS", 1)
    dataset, _ = load_prepared(prepared / RowKind.PREFERENCE, RowKind.PREFERENCE)
    dataset = concatenate_datasets([dataset] * 30)  # several chunks of rows
    everything = encode_dataset(dataset, processor, kind=RowKind.PREFERENCE, max_length=1000)
    limits = {"kind": RowKind.PREFERENCE, "max_length": max(everything.lengths) - 1}
    one = encode_dataset(dataset, processor, **limits)
    two = encode_dataset(dataset, processor, **limits, processes=2)
    assert 0 < len(two) < len(dataset)
    assert (two.rows, two.left_out, two.num_images) == (one.rows, one.left_out, one.num_images)
    for index in range(len(one)):
        first, second = one.with_hashes()[index], two.with_hashes()[index]
        assert first == second


def test_longer_rows_are_left_out_and_never_cut(prepared, processor):
    dataset, _ = load_prepared(prepared / RowKind.SFT, RowKind.SFT)
    lengths = encode_dataset(dataset, processor, kind=RowKind.SFT, max_length=1000).lengths
    limit = sorted(lengths)[12]
    encoded = encode_dataset(dataset, processor, kind=RowKind.SFT, max_length=limit)
    assert encoded.rows == [i for i, length in enumerate(lengths) if length <= limit]
    assert encoded.left_out == {"longer than max_length": 24 - len(encoded)}
    assert encoded[0]["images"][0] == dataset[encoded.rows[0]]["images"][0]
    with pytest.raises(
        UserError, match=rf"none of 24 rows fits .* 5: the shortest takes {min(lengths)}"
    ):
        encode_dataset(dataset, processor, kind=RowKind.SFT, max_length=5)


def test_no_image_is_decoded_for_its_tokens(prepared, processor, monkeypatch):
    from PIL import Image

    dataset, _ = load_prepared(prepared / RowKind.SFT, RowKind.SFT)
    monkeypatch.setattr(Image, "open", lambda *args, **options: pytest.fail("decoded"))
    encode_dataset(dataset, processor, kind=RowKind.SFT, max_length=1000)


def test_a_chosen_part_of_a_data_set_can_be_encoded(prepared, processor):
    dataset, _ = load_prepared(prepared / RowKind.SFT, RowKind.SFT)
    part = dataset.select([7, 3, 20])
    encoded = encode_dataset(part, processor, kind=RowKind.SFT, max_length=1000)
    for index, number in enumerate([7, 3, 20]):
        one = encode_sft(dataset[number], processor)
        assert encoded[index]["input_ids"] == one.input_ids
        assert encoded[index]["images"][0] == dataset[number]["images"][0]


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text.strip() and "<|" not in text
)


@settings(max_examples=150, deadline=None)
@given(turns=st.lists(st.tuples(words, words), min_size=1, max_size=3), images=st.integers(0, 2))
def test_any_text_is_learned_to_the_letter(processor, turns, images):
    """Whatever Unicode the answer holds, exactly it and its end token carry loss."""
    *earlier, (question, answer) = turns
    prompt = [m for q, a in earlier for m in (message("user", q), message("assistant", a))]
    row = sft_row("r", [None] * images, [*prompt, message("user", question)], answer, source="s")
    encoded = encode_sft(row, processor)
    assert learned(encoded, processor) == answer + "<|im_end|>"
    start = encode_prompt(row, processor).input_ids
    assert encoded.input_ids[: len(start)] == start
    assert [label != -100 for label in encoded.labels].index(True) == len(start)


def test_a_pair_takes_what_its_layout_takes(prepared, processor):
    """By the labels of every item: the prompt counts once, and once more its last token."""
    dataset, _ = load_prepared(prepared / RowKind.PREFERENCE, RowKind.PREFERENCE)
    encoded = encode_dataset(dataset, processor, kind=RowKind.PREFERENCE, max_length=1000)
    whole = encoded.as_pairs(shared_prompt=False)
    shared = encoded.as_pairs(shared_prompt=True)
    for index, item in enumerate(encoded):
        sides = [len(item["chosen_input_ids"]), len(item["rejected_input_ids"])]
        prompt = [label != -100 for label in item["chosen_labels"]].index(True)
        assert encoded.lengths[index] == max(sides)
        assert whole.lengths[index] == sum(sides)
        assert shared.lengths[index] == sum(sides) - prompt + 1
        assert shared[index] == item
    assert len(set(shared.lengths)) > 3


def test_items_are_found_from_the_end_and_nowhere_beyond(prepared, processor):
    dataset, _ = load_prepared(prepared / RowKind.SFT, RowKind.SFT)
    encoded = encode_dataset(dataset, processor, kind=RowKind.SFT, max_length=1000)
    assert encoded[-1] == encoded[23]
    for index in (24, -25):
        with pytest.raises(IndexError):
            encoded[index]


def test_every_turn_can_be_learned(processor):
    row = sft_row("r", [b""], MULTI_TURN, "blue", source="s")
    every = encode_sft(row, processor, learn_turns="all")
    assert learned(every, processor) == "a circle<|im_end|>blue<|im_end|>"
    assert every.input_ids == encode_sft(row, processor).input_ids


def test_a_turn_that_opens_the_conversation_is_not_learned(processor):
    prompt = [message("assistant", "Hello!"), *MULTI_TURN]
    row = sft_row("r", [b""], prompt, "blue", source="s")
    encoded = encode_sft(row, processor, learn_turns="all")
    assert learned(encoded, processor) == "a circle<|im_end|>blue<|im_end|>"
    assert encoded.input_ids == encode_sft(row, processor).input_ids


def test_rows_with_more_images_are_left_out_and_counted(processor):
    rows = [conversation(number, number, [("What?" * 9 * number, "this")]) for number in range(5)]
    options = {"kind": RowKind.SFT, "max_length": 130}
    encoded = encode_dataset(stored(rows), processor, **options, max_images=3)
    lengths = [len(encode_sft(row, processor)) for row in rows]
    assert encoded.rows == [i for i in range(4) if lengths[i] <= 130]
    assert encoded.left_out == {
        "longer than max_length": 4 - len(encoded),
        "more images than max_images": 1,
    }
    assert 0 < len(encoded) < 4
    with pytest.raises(UserError, match="all of 2 rows have more than max_images 2"):
        encode_dataset(stored(rows[3:]), processor, **options, max_images=2)


def test_only_the_last_turn_of_a_pair_is_compared(processor, make_row):
    rows = [make_row(RowKind.PREFERENCE, prompt=MULTI_TURN)]
    options = {"kind": RowKind.PREFERENCE, "max_length": 500}
    item = encode_dataset(stored(rows, RowKind.PREFERENCE), processor, **options, learn_turns="all")
    ids = [label for label in item[0]["chosen_labels"] if label != -100]
    assert processor.tokenizer.decode(ids) == "blue<|im_end|>"


def test_hashes_stand_for_images_in_a_view_and_nothing_is_decoded(processor, monkeypatch):
    from PIL import Image

    rows = [conversation(number, number % 3, [("What?", "this")]) for number in range(6)]
    dataset = stored(rows)
    encoded = encode_dataset(dataset, processor, kind=RowKind.SFT, max_length=500, max_images=1)
    assert encoded.rows == [0, 1, 3, 4]
    monkeypatch.setattr(Image, "open", lambda *args, **options: pytest.fail("decoded"))
    view = encoded.with_hashes()
    stored_hashes = dataset["image_hashes"]
    for index, item in enumerate(view):
        assert set(item) == {"input_ids", "labels", "image_hashes"}
        assert item["image_hashes"] == stored_hashes[encoded.rows[index]]
        assert encoded.row_id(index) == f"made/{encoded.rows[index]}"
    monkeypatch.undo()
    assert "images" in encoded[1]
    assert len(encoded.images(1)) == 1
