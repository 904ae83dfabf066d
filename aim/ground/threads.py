"""How torch's threads on a CPU wait for each other: OpenMP reads the environment when torch is imported."""

import os

SPINS = "3000"  # of GNU OpenMP, some hundredths of a millisecond


def spin_briefly() -> None:
    """Let torch's threads on a CPU sleep where they would wait for each other for long.

    By default they spin for milliseconds, on cores that decoding processes need, and for threads that these displace.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
