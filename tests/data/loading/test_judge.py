import pytest

from aim.data.lists import Video
from aim.data.loading.judge import STALLED, Judge
from tests.messages import refused


def judge(workers: int) -> Judge:
    videos = [Video(f"{i}.mp4", 0, None, None) for i in range(1000)]
    return Judge(videos, 1, workers, on_error="skip", setting="data.on_error", max_bad=0.5, known={})


@pytest.mark.parametrize(("workers", "most"), [(1, STALLED), (STALLED, STALLED), (16, 16)])
def test_a_server_that_stalls_is_told_from_videos_that_hang(workers: int, most: int) -> None:
    found = judge(workers)
    for _ in range(3):
        for i in range(most - 1):
            found.hangs(f"{i}.mp4: no frame")
        found.hung = 0  # another one was read
    for i in range(most - 1):
        found.hangs(f"{i}.mp4: no frame")
    with refused(f"{most}", "z.mp4", "data.timeout"):
        found.hangs("z.mp4: no frame")
