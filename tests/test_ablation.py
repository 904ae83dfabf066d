"""The paper's ablations (tables 1, 6, 7 and 8): every file builds, with the size that its table prints."""

import pytest
import torch

from aim.engine.loop.optim import adamw
from aim.engine.run.settings import Run
from aim.ground import choices, config
from tests.adapters.test_aim import aim_count

# Tuned parameters in millions, as printed, and exactly: by formula, or field.md section 1.1.
TIMESFORMER = 121, None
SPATIAL = 12 * (2 * 768 * 192 + 192 + 768)  # an adapter in each block
HEAD = 769 * 174
ROWS = {
    "components_frozen": (0.1, HEAD),
    "components_finetuned": (86, None),
    "components_timesformer": TIMESFORMER,
    "components_spatial": (3.7, SPATIAL + 2 * 768 + HEAD),
    "components_temporal": (10.8, aim_count(768, 12, 174, 8, adapters=3)),
    "components_aim": (14.3, aim_count(768, 12, 174, 8, adapters=4)),
    "backbones_timesformer_in21k": TIMESFORMER,
    "backbones_timesformer_clip": TIMESFORMER,
    "backbones_aim_in21k": (11, aim_count(768, 12, 400, 8, adapters=3)),
    "backbones_aim_swin_b": (9.2, 9_172_080),
    "positions_bottom_6": (5.6, aim_count(768, 6, 400, 8, adapters=3)),
    "positions_top_6": (5.6, aim_count(768, 6, 400, 8, adapters=3)),
    "positions_every_2": (5.6, aim_count(768, 6, 400, 8, adapters=3)),
    "ratio_16th": (3, aim_count(768, 12, 400, 8, adapters=3, ratio=0.0625)),
    "ratio_8th": (5.6, aim_count(768, 12, 400, 8, adapters=3, ratio=0.125)),
    "ratio_half": (21, aim_count(768, 12, 400, 8, adapters=3, ratio=0.5)),
}
FOLDER = choices.CONFIGS / "experiment" / "ablation"


def test_every_row_has_its_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_an_ablation_builds_with_the_published_size_and_says_what_it_is(name: str) -> None:
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[2] == f"# Run: python -m aim.train +experiment=ablation/{name} data.root=DIR"
    assert max(map(len, lines)) <= 140
    overrides = [f"+experiment=ablation/{name}", "backbone.weights=random", "data.root=x"]
    run = config.build(config.compose(overrides), Run)
    run.check_augmentation()
    assert run.name == name
    run.check_batch(1)
    views = run.views.protocol(run.clip.num_frames)
    assert views in lines[1].replace(" frames x ", "x").replace(" clips x ", "x").replace(" clip x ", "x")
    with torch.device("meta"):
        model = run.model(run.data.num_classes)
    adamw(model, run.optim)
    tuned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    millions, exact = ROWS[name]
    assert exact in (None, tuned)
    assert abs(tuned / 1e6 - millions) < (0.1 if isinstance(millions, float) else 1)  # the tables round or cut
    assert f"{millions} M" in lines[1]
