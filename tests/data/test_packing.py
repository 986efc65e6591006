"""Best-fit packing against a search through all packs, and against its own promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siqvl.data.packing import best_fit


def slow_best_fit(lengths, images, max_tokens, max_images):
    """The definition, word for word: every open pack is looked at for every row."""
    packs: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        tightest = None
        for number, pack in enumerate(packs):
            tokens_left = max_tokens - sum(lengths[i] for i in pack) - lengths[row]
            images_left = max_images - sum(images[i] for i in pack) - images[row]
            if tokens_left >= 0 and images_left >= 0:
                fit = (tokens_left, -images_left, number)
                tightest = fit if tightest is None else min(tightest, fit)
        if tightest is None:
            packs.append([row])
        else:
            packs[tightest[-1]].append(row)
    return packs


rows = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(rows=rows, max_tokens=st.integers(20, 33), max_images=st.integers(3, 6))
def test_packs_are_those_of_a_search_through_all_of_them(rows, max_tokens, max_images):
    lengths = [length for length, _ in rows]
    images = [count for _, count in rows]
    packs = best_fit(lengths, images, max_tokens=max_tokens, max_images=max_images)
    assert packs == slow_best_fit(lengths, images, max_tokens, max_images)


@settings(max_examples=100, deadline=None)
@given(rows=rows, max_tokens=st.integers(20, 33))
def test_without_an_image_budget_images_change_nothing(rows, max_tokens):
    lengths = [length for length, _ in rows]
    packs = best_fit(lengths, [count for _, count in rows], max_tokens=max_tokens)
    assert packs == slow_best_fit(lengths, [0] * len(rows), max_tokens, 0)


def test_packs_by_hand():
    # 6 opens a pack of 10; 5 does not fit beside it; 4 fills the first; 3 goes to the second
    assert best_fit([3, 6, 5, 4], [0] * 4, max_tokens=10) == [[1, 3], [2, 0]]
    # the same, but with one image each and room for one: nothing shares a pack
    alone = best_fit([3, 6, 5, 4], [1] * 4, max_tokens=10, max_images=1)
    assert alone == [[1], [2], [3], [0]]
    # without an image, the 4 may join
    assert best_fit([3, 6, 5, 4], [1, 1, 1, 0], max_tokens=10, max_images=1) == [[1, 3], [2], [0]]
    assert best_fit([], [], max_tokens=10) == []


def test_a_realistic_mixture_fills_its_packs_and_keeps_both_budgets():
    """Log-normal texts with up to four pictures of 81 tokens."""
    rng = np.random.default_rng(0)
    images = rng.choice([0, 1, 2, 4], 16_384, p=[0.1, 0.8, 0.07, 0.03])
    text = np.clip(rng.lognormal(4.9, 0.8, len(images)).astype(int), 20, 1700)
    lengths = text + 81 * images
    packs = best_fit(lengths.tolist(), images.tolist(), max_tokens=2048, max_images=16)
    assert sorted(row for pack in packs for row in pack) == list(range(len(images)))
    assert max(lengths[pack].sum() for pack in packs) <= 2048
    assert max(images[pack].sum() for pack in packs) <= 16
    assert lengths.sum() / (2048 * len(packs)) >= 0.95


@pytest.mark.parametrize(("length", "images"), [(11, 0), (5, 3)])
def test_a_row_over_a_budget_is_refused(length, images):
    with pytest.raises(ValueError, match=f"a row of {length} tokens and {images} images does not"):
        best_fit([4, length], [1, images], max_tokens=10, max_images=2)
