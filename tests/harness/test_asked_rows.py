"""What a harness asks becomes the row that a source would read, and the prompt of an evaluation."""

import base64
import io

import pytest
from PIL import Image

from siqvl.data.encode import encode_prompt
from siqvl.errors import UserError
from siqvl.harness.asked_rows import asked_row, conversation_row

RED, BLUE = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))


def text(words):
    return {"type": "text", "text": words}


def image(picture):
    return {"type": "image", "url": picture}


def asked(*parts):
    return conversation_row("q", [{"role": "user", "content": list(parts)}])


def colors(row):
    return [one.getpixel((0, 0)) for one in row["images"]]


def said(row):
    return [turn["content"] for turn in row["prompt"]]


@pytest.mark.parametrize(
    ("words", "pictures", "stored", "order"),
    [
        ("what is it?", [RED], "what is it?", [0]),
        ("what is it?", [], "what is it?", []),
        ("<image>\nwhat is it?", [RED], "what is it?", [0]),
        ("is <image> like <image>?", [RED, BLUE], "is <image> like <image>?", [0, 1]),
        ("is <image 2> like <image 1>?", [RED, BLUE], "is <image> like <image>?", [1, 0]),
        # marks that do not fit are left out, as `shown_with` does
        ("is <image> like <image>?", [RED], "is like ?", [0]),
        ("what does <image> mean?", [], "what does mean?", []),
        # a numbered mark without its picture is text
        ("see <image 3>: what is it?", [RED], "see <image 3>: what is it?", [0]),
        ("what does <|image_pad|> mean?", [RED], "what does <| image_pad|> mean?", [0]),
        ("cafe\u0301", [RED], "caf\u00e9", [0]),
    ],
)
def test_a_text_with_its_pictures(words, pictures, stored, order):
    row = asked_row("q", words, pictures)
    assert said(row) == [stored]
    assert colors(row) == [[RED, BLUE][number].getpixel((0, 0)) for number in order]
    # a message that shows its pictures first is the same question
    assert asked(*map(image, pictures), text(words)) == row


def test_pictures_between_texts_keep_their_places_and_marks_beside_them_go():
    row = asked(text("is "), image(BLUE), text("like <image> "), image(RED), text("?"))
    assert said(row) == ["is <image>like<image>?"]
    assert colors(row) == [(0, 0, 255), (255, 0, 0)]
    assert said(asked(text("what is it?"), image(RED))) == ["what is it?<image>"]


def test_a_conversation_keeps_its_turns():
    row = conversation_row(
        "q",
        [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [image(RED), text("what?")]},
            {"role": "assistant", "content": [text("red")]},
            {"role": "user", "content": [text("sure?")]},
        ],
    )
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user", "assistant", "user"]
    assert said(row) == ["Be short.", "what?", "red", "sure?"]
    assert len(row["images"]) == 1


def test_the_prompt_is_that_of_a_question_of_ours(processor):
    for words, pictures in [
        ("what is it?", [RED]),
        ("is <image> like <image>?", [RED, BLUE]),
        ("two and two?", []),
    ]:
        question = {"id": "1", "question": words, "images": pictures}
        expected = encode_prompt(question, processor).input_ids
        assert encode_prompt(asked_row("q", words, pictures), processor).input_ids == expected


def test_pictures_become_what_preparation_stores(tmp_path):
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    stream = io.BytesIO()
    clear.save(stream, "PNG")
    url = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    row = asked_row("q", "what?", [clear, str(tmp_path / "clear.png"), url])
    assert [one.mode for one in row["images"]] == ["RGB"] * 3
    assert colors(row) == [(255, 255, 255)] * 3
    turned = Image.new("RGB", (2, 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    turned.save(stream, "JPEG", exif=exif)
    (upright,) = asked_row("q", "what?", [Image.open(stream)])["images"]
    assert upright.size == (6, 2)


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}], "of type video"),
        ([{"role": "system", "content": [image(RED)]}], "role system, not user"),
        ([{"role": "assistant", "content": "hm"}], "ends with no message of a user"),
        ([], "ends with no message of a user"),
        ([{"role": "user", "content": [image("no.png")]}], "cannot be read"),
        ([{"role": "user", "content": [image("http://a/b.png")]}], "addresses are not fetched"),
        ([{"role": "user", "content": [image("data:image/png;base64,*")]}], "no base64 text"),
        ([{"role": "user", "content": [image(None)]}], "got NoneType"),
        ([{"role": "user", "content": [image(Image.new("I", (2, 2)))]}], "no common scale"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(messages, sentence):
    with pytest.raises(UserError, match=r"^q ") as error:
        conversation_row("q", messages)
    assert sentence in error.value.message
    assert "\n" not in error.value.message
