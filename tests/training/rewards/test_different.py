"""Equal completions are found, and passes have rows of like length."""

import torch

from siqvl.training.rewards.different import Different, passes_over


def test_completions_are_equal_if_question_and_tokens_are() -> None:
    ids = torch.tensor([[0, 5, 6, 0], [0, 5, 6, 0], [0, 5, 6, 0], [0, 5, 6, 0], [0, 5, 7, 0]])
    mask = torch.tensor([[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 1, 0], [0, 1, 1, 0]])
    found = Different.among([3, 3, 3, 4, 3], ids, mask)
    assert found.rows == [0, 2, 3, 4]
    assert found.of.tolist() == [0, 0, 1, 2, 3]


def test_passes_keep_what_learns_apart_and_sort_by_length() -> None:
    learning = [True, False, True, True, False]
    passes = passes_over([9, 5, 3, 4, 2], learning, 2)
    assert passes == [[2, 3], [0], [4, 1]]
    assert passes_over([1, 2], [False, False], 8) == [[0, 1]]
