"""What an epoch holds, counted by hand."""

from collections import Counter

import numpy as np
import pytest

from siqvl.data.encode import encode_dataset
from siqvl.data.mixture import Mixture, Share
from siqvl.data.schema import RowKind
from siqvl.recipe import Source
from tests.data.made_rows import conversation, stored


def mixture(counts, weights, **options) -> Mixture:
    """Sources of some rows each; item i has i + 1 tokens."""
    source_of = np.repeat(np.arange(len(counts)), counts)
    names = [f"source {number}" for number in range(len(counts))]
    lengths = range(1, len(source_of) + 1)
    return Mixture(source_of, lengths, names=names, weights=weights, **options)


def draws(mixed: Mixture, epoch: int) -> Counter:
    return Counter(mixed.epoch(epoch).tolist())


def test_a_weight_is_the_times_a_row_counts():
    mixed = mixture([4, 6, 8], [1.0, 2.0, 0.5])
    for epoch in range(3):
        times = draws(mixed, epoch)
        assert [times[item] for item in range(10)] == [1] * 4 + [2] * 6
        assert sum(times[item] for item in range(10, 18)) == 4
        assert max(times[item] for item in range(10, 18)) == 1


def test_half_a_source_takes_turns_with_the_other_half():
    mixed = mixture([8], [0.5])
    first, second, third = (draws(mixed, epoch) for epoch in range(3))
    assert set(first) | set(second) == set(range(8))
    assert not set(first) & set(second)
    assert third == first


def test_one_and_a_half_is_every_row_and_half_of_them_twice():
    mixed = mixture([4], [1.5])
    first, second = draws(mixed, 0), draws(mixed, 1)
    assert sorted(first.values()) == sorted(second.values()) == [1, 1, 2, 2]
    assert first + second == Counter(dict.fromkeys(range(4), 3))


def test_rows_that_do_not_divide_are_drawn_over_epochs():
    mixed = mixture([5], [0.5])
    assert [mixed.epoch(epoch).size for epoch in range(4)] == [3, 2, 3, 2]
    assert sum((draws(mixed, epoch) for epoch in range(4)), Counter()) == dict.fromkeys(range(5), 2)


def test_no_row_is_drawn_twice_while_another_waits():
    mixed = mixture([7], [0.3])
    total: Counter = Counter(dict.fromkeys(range(7), 0))
    for epoch in range(23):
        total.update(draws(mixed, epoch))
        assert max(total.values()) - min(total.values()) <= 1
    assert total.total() == round(7 * 0.3 * 23)


@pytest.mark.parametrize(
    ("weights", "temperature", "expected"),
    [
        ([1, 1], 1.0, [100, 900]),
        ([1, 1], 2.0, [250, 750]),  # square roots 10 and 30
        ([4, 1], 2.0, [520, 780]),  # 400 and 900: 20 and 30, of 1300
        ([1, 1], 1e9, [500, 500]),
        ([3, 0.5], 1.0, [300, 450]),
    ],
)
def test_temperature_evens_shares_out_and_keeps_the_total(weights, temperature, expected):
    mixed = mixture([100, 900], weights, temperature=temperature)
    assert mixed.rows_per_epoch == pytest.approx(expected, rel=1e-6)
    assert [share.rows for share in mixed.realised(mixed.epoch(0))] == expected


def test_every_epoch_has_an_order_of_its_own_and_every_seed_too():
    orders = [mixture([50], [1.0], seed=seed).epoch(n).tolist() for seed in (0, 1) for n in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert mixture([50], [1.0], seed=1).epoch(1).tolist() == orders[3]


def test_sources_are_mixed_all_over_an_epoch():
    mixed = mixture([500, 500], [1.0, 1.0])
    for part in np.split(mixed.source_of[mixed.epoch(0)], 10):
        assert 25 <= part.sum() <= 75  # 50 expected, sigma 4.7


def test_realised_rows_and_tokens_by_hand():
    mixed = mixture([2, 3], [1.0, 1.0])
    shares = mixed.realised(np.array([0, 0, 1, 4]))  # tokens 1, 1, 2 and 5
    assert shares == [Share("source 0", 3, 4), Share("source 1", 1, 5)]


def test_a_source_of_which_nothing_is_left_gives_nothing():
    mixed = mixture([3, 0, 5], [1.0, 2.0, 1.0], temperature=3.0)
    assert [share.rows for share in mixed.realised(mixed.epoch(0))][1] == 0
    assert sum(mixed.rows_per_epoch) == pytest.approx(8)


def test_the_mixture_of_a_recipe_follows_rows_that_were_left_out(processor):
    """Rows 1 and 4 are too long; sources have 2, 0 and 4 prepared rows."""
    rows = [conversation(n, 0, [("What?" * (80 if n in (1, 4) else 1), "x")]) for n in range(6)]
    encoded = encode_dataset(stored(rows), processor, kind=RowKind.SFT, max_length=200)
    assert encoded.rows == [0, 2, 3, 5]
    sources = [
        Source(kind="shapes"),
        Source(kind="easy_vqa", path="${DATA}/somewhere/easy_vqa", weight=9),
        Source(kind="finevision", path="HuggingFaceM4/FineVision", weight=2),
    ]
    mixed = Mixture.of(encoded, sources, [2, 0, 4])
    assert mixed.source_of.tolist() == [0, 2, 2, 2]
    length = encoded.lengths[0]
    assert mixed.realised(mixed.epoch(0)) == [
        Share("shapes", 1, length),
        Share("easy_vqa somewhere/easy_vqa", 0, 0),
        Share("finevision HuggingFaceM4/FineVision", 6, 6 * length),
    ]
    assert Mixture.of(encoded, [Source(kind="table", path="${DATA}")], [6]).names == ["table DATA"]
