"""Axes: places and round numbers."""

import pytest

from siqvl.page.axis import Axis


def test_places_run_from_zero_to_one() -> None:
    axis = Axis(-10, 30)
    assert [axis.share(value) for value in (-10, 0, 30)] == [0, 0.25, 1]
    assert axis.percent(20) == "75.00%"
    decades = Axis(0.01, 100, log=True)
    assert [decades.share(value) for value in (0.01, 1, 100)] == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 600, [0, 200, 400, 600]),
        (0, 9000, [0, 2000, 4000, 6000, 8000]),
        (0, 1.08, [0, 0.5, 1]),
        (0, 7, [0, 2, 4, 6]),
        (-0.3, 0.7, [-0.2, 0, 0.2, 0.4, 0.6]),
        (0, 2, [0, 0.5, 1, 1.5, 2]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Axis(low, high).ticks(5) == pytest.approx(ticks)


def test_logarithmic_ticks_are_1_2_5_or_powers_of_ten() -> None:
    assert Axis(0.4, 6, log=True).ticks(5) == pytest.approx([0.5, 1, 2, 5])
    assert Axis(0.002, 3000, log=True).ticks(5) == pytest.approx([0.01, 0.1, 1, 10, 100, 1000])
