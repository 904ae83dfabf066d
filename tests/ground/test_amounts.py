import pytest

from aim.ground.amounts import in_millions, tuned_of


@pytest.mark.parametrize(
    ("tuned", "expected"), [(102_536, "0.10"), (2310, "2.31 k"), (99_999, "100 k"), (774, "774"), (0, "0")]
)
def test_few_trained_parameters_are_counted_in_thousands(tuned: int, expected: str) -> None:
    assert tuned_of(tuned, 21_560_000) == f"{expected} of 21.56 M"


def test_a_column_in_millions_shows_few_parameters_too() -> None:
    assert [in_millions(count) for count in (21_560_000, 100_000, 34_696, 2310, 0)] == [
        "21.56", "0.10", "0.035", "0.0023", "0.00",
    ]  # fmt: skip
