import pytest

from aim.ground.clock import clock, seconds_since_start


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (185, "3m05s"), (8220, "2h17m"), (100_800, "1d04h")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_seconds_count_from_the_start_of_the_users_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < seconds_since_start() < 1e9
    monkeypatch.setenv("AIM_STARTED", "0")
    assert seconds_since_start() > 1e9
