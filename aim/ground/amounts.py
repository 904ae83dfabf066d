"""Numbers of parameters, for a person."""

MILLION = 10**6
LEAST = 10**5  # from which on hundredths of a million tell enough


def tuned_of(tuned: int, total: int) -> str:
    """The trained parameters and all: "0.10 of 1.00 M", "2.31 k of 21.56 M", "774 of 0.89 M"."""
    few = f"{tuned / 1000:.3g} k" if tuned >= 1000 else f"{tuned:.0f}"
    return f"{in_millions(tuned) if tuned >= LEAST else few} of {in_millions(total)} M"


def in_millions(count: int) -> str:
    """A number of parameters in millions, with two digits where hundredths would have fewer: "0.10", "0.0023"."""
    return f"{count / MILLION:.2f}" if count >= LEAST or not count else f"{count / MILLION:.2g}"
