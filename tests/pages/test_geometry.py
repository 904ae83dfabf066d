import pytest

from aim.pages import geometry


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 0.0003, [0, 0.0001, 0.0002, 0.0003]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert geometry.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (0.00015, "1.5e-4"), (3e-4, "3e-4"), (0.0025, "2.5e-3"), (0.25, "0.25"), (12345.6, "1.235e+04")],
)
def test_numbers_are_short_and_right(value: float, expected: str) -> None:
    assert geometry.number(value) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1, 100, [1, 3, 10, 30, 100]),
        (5000, 3e6, [1e4, 1e5, 1e6]),
        (0.02, 0.5, [0.02, 0.05, 0.1, 0.2, 0.5]),
        (1, 1e12, [1, 1e3, 1e6, 1e9, 1e12]),
        (40, 60, [40, 50, 60]),
        (7, 7.5, [7, 7.2, 7.4]),
        (3, 3, [3]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round_and_few(low: float, high: float, expected: list[float]) -> None:
    assert geometry.log_ticks(low, high) == pytest.approx(expected)


def test_a_decade_is_as_long_as_the_next() -> None:
    scale = geometry.Scale(1.0, 100.0, 50.0, 10.0, log=True)
    assert [scale(value) for value in (1.0, 10.0, 100.0)] == [50.0, 30.0, 10.0]
    assert geometry.Scale(3.0, 3.0, 0.0, 1.0, log=True)(3.0) == 0.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"), (0.05, "0.05"), (480, "480"), (1536, "1536"), (12345, "12.3 k"), (999_999, "1 M"), (3.14e6, "3.14 M"),
        (2e15, "2\xb710\xb9\u2075"), (1e9, "10\u2079"), (1e-5, "10\u207b\u2075"), (-0.25, "-0.25"),
    ],
)  # fmt: skip
def test_numbers_of_any_size_are_short(value: float, expected: str) -> None:
    assert geometry.short(value) == expected


@pytest.mark.parametrize(("high", "expected"), [(0.34, [0, 0.2, 0.4]), (0.45, [0, 0.2, 0.4, 0.6]), (1, [0, 0.5, 1])])
def test_enclosing_ticks_reach_from_end_to_end(high: float, expected: list[float]) -> None:
    assert geometry.enclosing_ticks(0.0, high, 2) == pytest.approx(expected)
