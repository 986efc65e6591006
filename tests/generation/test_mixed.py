"""Choosing as each request says, against transformers' own warpers and exact frequencies."""

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from siqvl.errors import UserError
from siqvl.generation.mixed import Mixed, likeliest_alone
from siqvl.generation.request import Sampling


def scores(rows: int, tokens: int = 50) -> torch.Tensor:
    return torch.randn(rows, tokens, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.8, 0.95])
def test_the_likeliest_are_those_of_transformers(top_p: float) -> None:
    logits = scores(200)
    kept = likeliest_alone(logits, torch.full((200, 1), top_p))
    expected = TopPLogitsWarper(top_p)(None, logits)
    assert torch.equal(kept.isfinite(), expected.isfinite())
    assert torch.equal(kept[kept.isfinite()], logits[kept.isfinite()])


def test_rows_choose_each_in_its_own_way() -> None:
    logits = scores(1).expand(4, -1)
    choose = Mixed()
    said = [Sampling(400), Sampling(400, 1.0), Sampling(400, 0.5, 0.8), Sampling(400, 1.0, seed=3)]
    for row, one in enumerate(said):
        choose.add(row, one)
    drawn = torch.stack([choose(logits, range(4), [step] * 4) for step in range(400)])
    assert drawn[:, 0].unique().tolist() == [int(logits[0].argmax())]
    assert not torch.equal(drawn[:, 1], drawn[:, 3])
    for row, temperature, top_p in [(1, 1.0, 1.0), (2, 0.5, 0.8)]:
        warped = TemperatureLogitsWarper(temperature)(None, logits[:1])
        if top_p < 1:
            warped = TopPLogitsWarper(top_p)(None, warped)
        expected = warped.softmax(-1)[0]
        found = torch.bincount(drawn[:, row], minlength=50) / 400
        assert not found[expected == 0].any()
        assert (found - expected).abs().max() < 4 * (0.25 / 400) ** 0.5


def test_what_is_drawn_depends_on_the_seed_and_not_on_the_neighbours() -> None:
    logits = scores(3)
    alone, beside = Mixed(), Mixed()
    alone.add(7, Sampling(20, 1.0, seed=5))
    for row, seed in [(1, 1), (2, 5), (3, 9)]:
        beside.add(row, Sampling(20, 1.0, seed=seed))
    for step in range(20):
        assert alone(logits[1:2], [7], [step]) == beside(logits, [1, 2, 3], [step] * 3)[1]


def test_logprobs_are_of_the_scores() -> None:
    logits, choose = scores(2), Mixed()
    choose.add(0, Sampling(5, 1.0, 0.5, top_logprobs=3))
    choose.add(1, Sampling(5))
    chosen = choose(logits, [0, 1], [0, 0])
    told = choose.logprobs[0]
    expected = logits[0].log_softmax(-1)
    assert (told.id, told.logprob) == (int(chosen[0]), float(expected[chosen[0]]))
    assert [token for token, _ in told.top] == expected.argsort(descending=True)[:3].tolist()
    assert 1 not in choose.logprobs
    choose.remove(0)
    assert not choose.logprobs


def test_no_temperature_makes_a_choice_impossible() -> None:
    logits, choose = scores(1), Mixed()
    for row, temperature in enumerate([1e-30, 1e-3, 100.0]):
        choose.add(row, Sampling(1, temperature, 0.9))
    found = choose(logits.expand(3, -1), [0, 1, 2], [0, 0, 0])
    assert found[:2].tolist() == [int(logits.argmax())] * 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"stop": ("",)}, "stop takes"),
        ({"top_logprobs": 21}, "top_logprobs is 21"),
    ],
)
def test_what_cannot_be_done_is_refused(wrong, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Sampling(**{"max_new_tokens": 4, **wrong})
