"""Our template for Qwen3 beside TRL's copies of the published ones, and what rows become."""

from pathlib import Path

import pytest
import trl

from siqvl.data.encode import encode_prompt, encode_sft
from siqvl.data.schema import message, sft_row
from siqvl.errors import UserError
from siqvl.model import assemble, chat_template, load_checkpoint
from siqvl.model.chat_templates import thinking_of
from siqvl.model.decoders import QWEN2, QWEN3
from tests.model.conversations import as_lists, assistant, render, system, user
from tests.model.tiny_siqvl import QWEN3_TOKENS, make_tokenizer, tiny_qwen3_config, write_language

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
HYBRID, INSTRUCT, KEEPING = (
    (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    for name in ("qwen3", "qwen3_instruct_2507", "qwen3_training")
)
#: As Qwen3-Thinking-2507: every prompt opens the block.
ALWAYS = HYBRID.partition("{%- if add_generation_prompt %}")[0] + (
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
)
OFF, ON = {"enable_thinking": False}, {"enable_thinking": True}
PLAIN, EMPTY = "<|im_start|>assistant\n", "<think>\n\n</think>\n\n"

THOUGHT = "<think>\nThe shape has three sides.\n</think>\n\na triangle"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALL = {"name": "look", "arguments": {"at": "é"}}
CONVERSATIONS = {
    "one question": [user("what is it?")],
    "an answer": [user("what is it?"), assistant("red")],
    "an answer after thoughts": [user("what is it?"), assistant(THOUGHT)],
    "thoughts beside the answer": [user("a"), assistant("b") | {"reasoning_content": "\nwhy\n"}],
    "a history": [user("a"), assistant("b"), user("c"), assistant("d")],
    "a history with thoughts": [user("a"), assistant(THOUGHT), user("c"), assistant(THOUGHT)],
    "a question after thoughts": [user("a"), assistant(THOUGHT), user("c")],
    "a system message": [system("Be brief."), user("a"), assistant("\n\nb")],
    "a late system message": [user("a"), assistant("b"), system("Be long."), user("c")],
    "no words": [user("a"), assistant("")],
    "calls": [
        user("a"),
        assistant("") | {"tool_calls": [{"function": CALL}, CALL]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
        assistant(THOUGHT) | {"tool_calls": [CALL | {"arguments": "{}"}]},
        {"role": "tool", "content": "3"},
        assistant("it is red"),
    ],
    "a user who brings a tool's answer": [
        user("a"), assistant(THOUGHT), user("<tool_response>1</tool_response>"), assistant("b")
    ],
}  # fmt: skip


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize(
    ("thinking", "published", "options"),
    [
        *[("none", INSTRUCT, {}), ("off", HYBRID, OFF), ("on", HYBRID, {}), ("on", HYBRID, ON)],
        ("always", ALWAYS, {}),
    ],
)
def test_texts_render_as_published(thinking, published, options, name, tools, prompt):
    messages = CONVERSATIONS[name]
    ours = chat_template("", decoder=QWEN3, thinking=thinking)
    expected = render(published, messages, tools=tools, add_generation_prompt=prompt, **options)
    asked = dict(tools=tools, add_generation_prompt=prompt)
    assert render(ours, messages, **asked) == expected
    assert render(ours, as_lists(messages), **asked) == expected


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("options", [OFF, ON])
def test_one_call_may_choose(name, options):
    """`enable_thinking` is for a call what `model.thinking` is for the checkpoint."""
    asked = dict(add_generation_prompt=True, **options)
    expected = render(HYBRID, CONVERSATIONS[name], **asked)
    for thinking in ("off", "on"):
        ours = chat_template(decoder=QWEN3, thinking=thinking)
        assert render(ours, CONVERSATIONS[name], **asked) == expected


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if name != "calls"])
def test_kept_thoughts_render_as_trl_trains(name):
    ours = chat_template(decoder=QWEN3, thinking="on")
    messages = CONVERSATIONS[name]
    assert render(ours, messages, keep_thinking=True) == render(KEEPING, messages)


def test_a_picture_is_where_it_is_in_qwen2_5():
    """Published text templates render contents that are lists as nothing at all."""
    content = [{"type": "image"}, {"type": "text", "text": "what is it?"}]
    for thinking in ("none", "off", "on", "always"):
        ours = chat_template("Look.", decoder=QWEN3, thinking=thinking)
        assert render(ours, [user(content)]) == render(chat_template("Look."), [user(content)])
    assert render(HYBRID, [user(content)]) == "<|im_start|>user\n<|im_end|>\n"


def tokenizer(template: str | None = HYBRID, tokens=QWEN3_TOKENS):
    made = make_tokenizer(tokens)
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    ("template", "wanted", "found"),
    [
        (HYBRID, None, "off"),
        (HYBRID, False, "off"),
        (HYBRID, True, "on"),
        (INSTRUCT, None, "none"),
        (INSTRUCT, False, "none"),
        (ALWAYS, None, "always"),
        (ALWAYS, True, "always"),
        (None, None, "none"),
    ],
    ids=str,
)
def test_the_published_template_tells_what_a_model_does(template, wanted, found):
    assert thinking_of(tokenizer(template), QWEN3, wanted, "part") == found


@pytest.mark.parametrize(
    ("template", "decoder", "wanted", "message"),
    [
        (INSTRUCT, QWEN3, True, "^part has no <think> … </think> in its chat template"),
        (INSTRUCT, QWEN2, True, "^part has no <think> … </think> in its chat template"),
        (ALWAYS, QWEN3, False, "^part opens a block of thoughts in every prompt"),
        ("{{ nothing.at.all }}", QWEN3, None, "^part: its chat template renders no question"),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_said(template, decoder, wanted, message):
    with pytest.raises(ValueError, match=message):
        thinking_of(tokenizer(template), decoder, wanted, "part")


def test_a_tokenizer_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="the tokenizer of part has no token '<think>'"):
        thinking_of(tokenizer(HYBRID, ()), QWEN3, None, "part")


@pytest.fixture(scope="module")
def language(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hybrid") / "qwen3"
    write_language(folder, tiny_qwen3_config(), template=HYBRID)
    return folder


def processor_of(parts, language, thinking):
    return assemble(parts[0], language, thinking=thinking, init="config")[1]


def row(answer: str = "red"):
    return sft_row("made/0", [], "what is it?", answer, source="made")


@pytest.mark.parametrize(
    ("thinking", "answer", "begins", "learned"),
    [
        (None, "red", PLAIN + EMPTY, "red<|im_end|>"),
        (True, "red", PLAIN, f"{EMPTY}red<|im_end|>"),
        (True, THOUGHT, PLAIN, f"{THOUGHT}<|im_end|>"),
    ],
    ids=str,
)
def test_rows_learn_what_prompts_ask_for(parts, language, thinking, answer, begins, learned):
    """The text before an answer is what evaluation asks with; the rest is what is learned."""
    processor = processor_of(parts, language, thinking)
    encoded, asked = encode_sft(row(answer), processor), encode_prompt(row(answer), processor)
    assert encoded.input_ids[: len(asked.input_ids)] == asked.input_ids
    decode = processor.tokenizer.decode
    assert decode(asked.input_ids).endswith("what is it?<|im_end|>\n" + begins)
    assert decode([one for one in encoded.labels if one != -100]) == learned
    text = render(
        HYBRID, [user("what is it?"), assistant(answer)], enable_thinking=thinking is True
    )
    assert decode(encoded.input_ids) == text.removesuffix("\n")


def test_thoughts_that_nobody_asked_for_are_refused(parts, language):
    processor = processor_of(parts, language, None)
    with pytest.raises(UserError, match=r"row made/0: .* set model\.thinking: true"):
        encode_sft(row(THOUGHT), processor)


@pytest.mark.parametrize("thinking", [None, True])
def test_all_turns_can_be_learned(parts, language, thinking):
    processor = processor_of(parts, language, thinking)
    turns = [message("user", "a"), message("assistant", "b"), message("user", "c")]
    conversation = row("d") | {"prompt": turns}
    encoded = encode_sft(conversation, processor, learn_turns="all")
    text = processor.tokenizer.decode(encoded.input_ids)
    assert text + "\n" == render(KEEPING, [*turns, message("assistant", "d")])
    said = processor.tokenizer.decode([one for one in encoded.labels if one != -100])
    before = EMPTY if thinking else ""
    assert said == f"{before}b<|im_end|>{before}d<|im_end|>"


def test_a_checkpoint_keeps_how_it_answers(parts, language, tmp_path):
    model, processor = assemble(parts[0], language, thinking=True)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = load_checkpoint(tmp_path)[1]
    assert again.chat_template == chat_template(decoder=QWEN3, thinking="on")
    asked = dict(tokenize=False, add_generation_prompt=True)
    assert again.apply_chat_template([user("a")], **asked).endswith(f"<|im_end|>\n{PLAIN}")
    text = again.apply_chat_template([user("a")], enable_thinking=False, **asked)
    assert text.endswith(PLAIN + EMPTY)
