"""Drawing completions: the right distribution, whatever shares the batch."""

import math
from types import SimpleNamespace

import pytest
import torch

from siqvl.data import sources
from siqvl.data.encode import encode_prompt
from siqvl.data.schema import RowKind
from siqvl.generation.beginnings import Prompt
from siqvl.generation.choose import Drawn, pick
from siqvl.generation.loop import end_ids, write
from siqvl.generation.sampling import random_numbers, sample
from siqvl.recipe import SampledPairs, Source

QUESTIONS = Source(kind="shapes", subsets=["vqa", "reasoning"], max_samples=6)


def questions():
    return list(sources.rows(QUESTIONS, RowKind.EVALUATION, 0))


def settings(**changes) -> SampledPairs:
    return SampledPairs(source=QUESTIONS, samples=3, max_new_tokens=12, **changes)


def completions(asked, **changes):
    return sample(*asked, questions(), settings(**changes), seed=0, progress=lambda count: None)


def draw(asked, row, uniform, *, temperature: float, end_ids):
    model, processor = asked
    count, longest = uniform.shape
    prompt = Prompt(encode_prompt(row, processor).input_ids, ("its picture",))
    pixels = processor.image_processor(images=row["images"], return_tensors="pt")
    tokens = model.get_image_features(**pixels, return_dict=True).pooler_output.detach()
    written = write(
        model,
        [prompt],
        lambda names: tokens,
        places=count,
        max_new_tokens=longest,
        end_ids=end_ids,
        samples=count,
        choose=Drawn(uniform, temperature),
    )
    found = dict(written)
    return [found[number] for number in range(count)]


def test_completions_end_where_config_or_tokenizer_say() -> None:
    def model(known: int | list[int] | None) -> SimpleNamespace:
        return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=known))

    assert end_ids(model([7, 8]), 9) == [7, 8]
    assert end_ids(model(7), 9) == [7]
    assert end_ids(model(None), 9) == [9]
    assert end_ids(model(None)) == []


def test_pick_inverts_the_cumulated_distribution() -> None:
    """Shares 0.1, 0.2, 0, 0.7: the second ends at 0.3, and nothing is third."""
    scores = torch.tensor([[math.log(0.1), math.log(0.2), -math.inf, math.log(0.7)]])
    numbers = torch.tensor([0.0, 0.0999, 0.1001, 0.2999, 0.3001, 0.9999])
    found = pick(scores.expand(len(numbers), -1), numbers, 1.0)
    assert found.tolist() == [0, 0, 1, 1, 3, 3]


def test_pick_takes_tokens_as_often_as_they_are_likely() -> None:
    scores, temperature, count = torch.tensor([2.0, -1.0, 0.5, 0.0, 3.0]), 1.7, 10_000
    grid = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    found = pick(scores.expand(count, -1), grid, temperature)
    weights = [math.exp(score / temperature) for score in scores.tolist()]
    expected = [weight / sum(weights) for weight in weights]
    shares = (torch.bincount(found, minlength=5) / count).tolist()
    assert shares == pytest.approx(expected, abs=2 / count)


def test_random_numbers_differ_by_seed_question_and_sample() -> None:
    streams = [random_numbers(*key, 1000) for key in ((0, "a", 0), (1, "a", 0), (0, "b", 0))]
    streams += [random_numbers(0, "a", number, 1000) for number in (1, 2)]
    assert len({tuple(stream) for stream in streams}) == 5
    assert streams[0] == random_numbers(0, "a", 0, 1000)
    assert random_numbers(0, "a", 0, 10) == streams[0][:10]
    assert all(0 <= number < 1 for stream in streams for number in stream)
    assert sum(map(sum, streams)) / 5000 == pytest.approx(0.5, abs=0.02)


def test_completions_are_those_of_one_row_alone_without_a_cache(asked) -> None:
    """The definition: softmax of the whole sequence's last scores, one token at a time,
    never a picture's."""
    model, processor = asked
    wanted = settings(temperature=0.8)
    for row, found in zip(questions(), completions(asked, temperature=0.8), strict=True):
        prompt = encode_prompt(row, processor).input_ids
        pixels = processor.image_processor(images=row["images"], return_tensors="pt")
        for number, completion in enumerate(found):
            ids, ended = list(prompt), False
            for drawn in random_numbers(0, row["id"], number, wanted.max_new_tokens):
                with torch.inference_mode():
                    scores = model(torch.tensor([ids]), pixel_values=pixels["pixel_values"]).logits
                    scores[..., model.generation_config.suppress_tokens] = -math.inf
                shares = (scores[0, -1].double() / 0.8).softmax(0).tolist()
                token, total = 0, shares[0]
                while total <= drawn:
                    token += 1
                    total += shares[token]
                ids.append(token)
                ended = token in end_ids(model)
                if ended:
                    break
            text = processor.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
            assert (completion.text, completion.ended) == (text.strip(), ended)


def test_completions_do_not_depend_on_the_batch(asked) -> None:
    alone = completions(asked, batch_size=1)
    assert completions(asked, batch_size=64) == alone
    assert completions(asked, batch_size=8) == alone
    assert len({one.text for found in alone for one in found}) > 6  # they differ at all


def test_a_completion_ends_with_an_end_token_or_at_the_limit(asked) -> None:
    model, _ = asked
    row = questions()[0]
    numbers = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    everything = range(model.config.text_config.vocab_size)
    at_once = draw(asked, row, numbers, temperature=1.0, end_ids=everything)
    assert [(len(found), ended) for found, ended in at_once] == [(1, True)] * 4
    never = draw(asked, row, numbers, temperature=1.0, end_ids=[])
    assert [(len(found), ended) for found, ended in never] == [(5, False)] * 4
    assert [found[:1] for found, _ in never] == [found for found, _ in at_once]
    # one of them ends at its second token: it leaves the batch, and the others go on as before
    second = never[2][0][1]
    early = draw(asked, row, numbers, temperature=1.0, end_ids=[second])
    for (found, ended), (full, _) in zip(early, never, strict=True):
        stop = full.index(second) + 1 if second in full else 5
        assert (found, ended) == (full[:stop], second in full)


def test_suppressed_tokens_are_not_drawn(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image token, which has mass in every distribution, and whatever is likeliest here."""
    model, _ = asked
    row = questions()[0]
    numbers = torch.rand(16, 12, generator=torch.Generator().manual_seed(0))
    free = draw(asked, row, numbers, temperature=1.0, end_ids=[])
    often = sorted({token for found, _ in free for token in found[:4]})
    suppressed = [*model.generation_config.suppress_tokens, *often]
    monkeypatch.setattr(model.generation_config, "suppress_tokens", suppressed)
    found = draw(asked, row, numbers, temperature=1.0, end_ids=[])
    assert model.config.image_token_id in suppressed
    assert not {token for one, _ in found for token in one} & set(suppressed)
