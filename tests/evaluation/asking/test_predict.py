"""Who is asked what, in which batches, and how an evaluation goes on."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from siqvl.errors import UserError
from siqvl.evaluation.asking.encoded_pictures import EncodedPictures
from siqvl.evaluation.asking.other_picture import other_pictures
from siqvl.evaluation.asking.outputs import read_outputs
from siqvl.evaluation.asking.predict import Share, first_prompt_text, method_of
from siqvl.evaluation.asking.question_plan import BATCHES, plan

PICTURES = st.lists(st.integers(0, 6).map(lambda n: (f"picture-{n}",)), min_size=2, max_size=30)


@given(PICTURES)
def test_other_pictures_are_never_ones_own(pictures) -> None:
    ids = [f"row-{n}" for n in range(len(pictures))]
    if len(set(pictures)) == 1:
        with pytest.raises(ValueError, match="the same picture"):
            other_pictures(ids, pictures)
        return
    others = other_pictures(ids, pictures)
    assert all(other != own for other, own in zip(others, pictures, strict=True))
    assert set(others) <= set(pictures)
    if max(Counter(pictures).values()) <= len(pictures) // 2:
        assert Counter(others) == Counter(pictures), "no permutation"


@given(PICTURES, st.randoms())
def test_other_pictures_do_not_depend_on_the_order_of_rows(pictures, random) -> None:
    if len(set(pictures)) == 1:
        return
    ids = [f"row-{n}" for n in range(len(pictures))]
    before = dict(zip(ids, other_pictures(ids, pictures), strict=True))
    shuffled = list(zip(ids, pictures, strict=True))
    random.shuffle(shuffled)
    ids, pictures = map(list, zip(*shuffled, strict=True))
    assert dict(zip(ids, other_pictures(ids, pictures), strict=True)) == before


def test_rows_swap_with_rows_of_as_many_pictures_where_they_can() -> None:
    pictures = [("a",), ("b",), (), ("c", "d"), ("e", "f"), ("g", "h", "i")]
    others = other_pictures(list("uvwxyz"), pictures)
    assert others[:5] == [("b",), ("a",), (), ("e", "f"), ("c", "d")]
    assert others[5] in pictures[:5]
    assert others[5] != ()


def test_each_player_is_shown_its_pictures(put) -> None:
    one = put("asked")
    own = [tuple(row["image_hashes"]) for row in one.questions.rows]
    assert [prompt.pictures for prompt in one.prompts("picture")] == own
    blind = one.prompts("no_picture")
    assert {prompt.pictures for prompt in blind} == {()}
    placeholder = one.processor.image_token_id
    assert all(placeholder not in prompt.words[0].input_ids for prompt in blind)
    others = one.prompts("other_picture")
    for seen, other, row in zip(one.prompts("picture"), others, one.questions.rows, strict=True):
        assert seen.words == other.words, "only the picture differs"
        assert other.pictures[0] not in row["image_hashes"]


def test_equal_prompts_are_put_once_and_every_prompt_in_one_portion(put) -> None:
    one = put("asked")
    questions = [row["question"] for row in one.questions.rows]
    different = {
        (question, prompt.pictures)
        for player in ("picture", "no_picture", "other_picture")
        for question, prompt in zip(questions, one.prompts(player), strict=True)
    }
    assert len(different) < 12 * 3 - 2, "nothing is there twice"
    assert len(one.plan.prompts) == len(different)
    assert sorted(number for portion in one.plan.portions for number in portion) == list(
        range(len(one.plan.prompts))
    )
    assert len(one.plan.portions) > 1
    assert {len(portion) for portion in one.plan.portions[:-1]} == {5 * BATCHES}
    asked = [ask for asks in one.plan.asks for ask in asks]
    assert len(asked) == len(set(asked)) == 3 * 12


def test_one_picture_for_all_questions_cannot_be_swapped(put) -> None:
    one = put("asked")
    for row in one.questions.rows:
        row["image_hashes"] = ["the same"]
    with pytest.raises(UserError, match="take `other_picture` out of its `blind`"):
        plan(one.questions, one.method, 5)


def test_the_prompt_is_shown_as_the_model_reads_it(put) -> None:
    for name, ending in (("asked", ""), ("pairs", "")):
        one = put(name)
        assert first_prompt_text(one.plan, one.processor) == (
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
            f"{one.questions.rows[0]['question']}{ending}<|im_end|>\n<|im_start|>assistant\n"
        )


def test_pictures_are_encoded_once_and_forgotten_when_there_are_too_many(put) -> None:
    import torch

    one = put("asked")
    passes = []
    tower = one.model.model.vision_tower
    hook = tower.register_forward_hook(lambda module, args, output: passes.append(len(args[0])))
    try:
        hashes = list(one.questions.places)
        few = EncodedPictures(one.model, one.processor, 5, kept_bytes=0)
        few.load(hashes[:7], one.questions.dataset, one.questions.places)
        assert passes == [5, 5], "passes are filled up"
        few.load(hashes[3:7], one.questions.dataset, one.questions.places)
        assert passes == [5, 5]
        few.load(hashes[7:8], one.questions.dataset, one.questions.places)
        assert passes == [5, 5, 5]
        with pytest.raises(KeyError):
            few.tokens(hashes[3:4])
        # of whatever company: the same tokens, those of transformers' own forward pass
        alone = one.pictures.tokens(hashes[7:8])
        again = few.tokens(hashes[7:8])
        assert torch.equal(again, alone)
        at, number = one.questions.places[hashes[7]]
        picture = one.questions.dataset[at]["images"][number]
        pixels = one.processor.image_processor(images=[picture], return_tensors="pt")
        with torch.no_grad():
            expected = one.model.get_image_features(**pixels, return_dict=True).pooler_output
        torch.testing.assert_close(alone, expected)
    finally:
        hook.remove()


def test_features_that_are_kept_give_the_same_tokens_without_the_tower(put, tmp_path) -> None:
    import torch

    one = put("asked")
    hashes = list(one.questions.places)
    passes = []
    tower = one.model.model.vision_tower
    hook = tower.register_forward_hook(lambda module, args, output: passes.append(len(args[0])))
    try:
        for expected in ([4] * -(-len(hashes) // 4), []):  # computed, then found
            kept = EncodedPictures(one.model, one.processor, 4)
            kept.keep(tmp_path, one.questions.dataset)
            assert passes == expected
            passes.clear()
            kept.load(hashes, one.questions.dataset, one.questions.places)
            assert passes == []
            assert torch.equal(kept.tokens(hashes), one.pictures.tokens(hashes))
        other = EncodedPictures(one.model, one.processor, 3)
        other.keep(tmp_path, one.questions.dataset)
        assert set(passes) == {3}, "passes of another size round otherwise: they are not the same"
    finally:
        hook.remove()


class Interrupting:
    """A method that is cut off after some portions."""

    def __init__(self, method, portions: int) -> None:
        self._method = method
        self._left = portions
        self.portions = 0

    def answer(self, prompts, pictures, told):
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        self.portions += 1
        return self._method.answer(prompts, pictures, told)


def test_a_killed_evaluation_goes_on_where_it_was(put, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("siqvl.evaluation.asking.question_plan.BATCHES", 1)
    one = put("asked")
    total = len(one.plan.portions)
    assert total >= 6

    def run(folder: Path, portions: int) -> Interrupting:
        folder.mkdir(exist_ok=True)
        method = Interrupting(one.method, portions)
        share = Share(one.plan, folder)
        with tqdm(disable=True) as bar:
            share.predict(one.questions, method, one.pictures, bar)
        return method

    run(tmp_path / "whole", total)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 4)
    assert len(list((tmp_path / "killed").glob("*.parquet"))) == 4
    share = Share(one.plan, tmp_path / "killed")
    done = sum(one.plan.answers(portion) for portion in one.plan.portions[:4])
    assert share.answers(left=True) == share.answers() - done
    assert run(tmp_path / "killed", total).portions == total - 4
    assert read_outputs([tmp_path / "killed"]) == read_outputs([tmp_path / "whole"])


def test_marks_are_asked_only_with_the_pictures_that_they_mark(put) -> None:
    """Interleaved questions as the model, the blind player and the one with other pictures read."""
    one = put("reasoned")
    ask = "A: <image> B: <image> Which is red?"
    rows = [
        {"id": "two", "question": ask, "image_hashes": ["a", "b"], "choices": []},
        {"id": "one", "question": "What?", "image_hashes": ["c"], "choices": []},
    ]
    benchmark = one.questions.benchmark.model_copy(
        update={"blind": ["no_picture", "other_picture"]}
    )
    questions = dataclasses.replace(one.questions, benchmark=benchmark, rows=rows)
    planned = plan(questions, method_of(benchmark, one.model, one.processor, 2), 2)
    token, image = one.processor.image_token, "<|vision_start|><|image_pad|><|vision_end|>"
    found = {}
    for prompt, asks in zip(planned.prompts, planned.asks, strict=True):
        text = one.processor.tokenizer.decode(prompt.words[0].input_ids)
        text = text.replace(token * one.processor.num_image_tokens, token)
        text = text.split("user\n")[1].removesuffix("<|im_end|>\n<|im_start|>assistant\n")
        found |= {
            ask: (text.removesuffix(benchmark.prompt_suffix), prompt.pictures) for ask in asks
        }
    assert found == {
        ("picture", 0): (f"A: {image} B: {image} Which is red?", ("a", "b")),
        ("picture", 1): (f"{image}What?", ("c",)),
        ("no_picture", 0): ("A: B: Which is red?", ()),
        ("no_picture", 1): ("What?", ()),
        ("other_picture", 0): (f"{image}A: B: Which is red?", ("c",)),
        ("other_picture", 1): (f"{image}{image}What?", ("a", "b")),
    }
