"""The model benchmark: its numbers."""

from pathlib import Path

import pytest

from tests.messages import refused
from tests.toy import measure

pytestmark = pytest.mark.usefixtures("toy_cache")


def test_the_model_needs_no_data_and_a_frozen_trunk_keeps_nothing(tmp_path: Path) -> None:
    no_data = ["what=model", "data=folder", "data.num_classes=5"]
    aim = measure(tmp_path, *no_data)["model"]
    frozen = measure(tmp_path, *no_data, "adapter=none")["model"]
    assert aim["train"]["clips_per_second"] > 0
    assert aim["test"]["clips_per_second"] > 0
    # The head alone: its input, mean over time and dropout off, and the probabilities.
    assert frozen["saved_mib_per_clip"] < 0.01 < aim["saved_mib_per_clip"]
    with refused("data.root", "what=model", "what=plan", "data.root=DIR"):
        measure(tmp_path, *no_data, "what=loader")
