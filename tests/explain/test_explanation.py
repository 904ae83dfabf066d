"""One explanation end to end, for families of trunks and adapters other than the toy run's."""

import pytest
import torch

from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.engine.machine.hardware import suit
from aim.engine.trained.recogniser import Recogniser
from aim.explain.explanation import explain, num_passes
from aim.models.classifier import build
from tests.models.toys import SIZE, adapter, randomise, toy


@pytest.mark.parametrize(
    ("trunk", "name", "num_frames", "method", "shape"),
    [
        ("swin_t", "aim", 6, "occlusion", (3, 4, 4)),  # 6 frames are 3 tubelets
        ("swin_t", "side", 4, "gradient", (2, 4, 4)),
        ("clip_vit_b16", "none", 1, "occlusion", (1, 4, 4)),
    ],
)
def test_any_model_is_explained_in_as_many_passes_as_were_said(trunk, name, num_frames, method, shape):
    model = build(toy(trunk), adapter(name), num_classes=3, num_frames=num_frames, size=SIZE, dropout=0.0)
    randomise(model)
    clip = torch.randint(0, 256, (num_frames, 3, SIZE, SIZE), dtype=torch.uint8)
    views = Views(temporal=1, spatial=1, resize=SIZE)
    recogniser = Recogniser(model.eval(), ["a", "b", "c"], Clip(num_frames, 1, SIZE, "uniform"), views)
    seen: list[int] = []
    found = explain(
        recogniser, clip, 2, method=method, cells=4, batch_size=7, precision="fp32", passed=seen.append
    )  # fmt: skip
    assert sum(seen) == num_passes(model, method, 4)
    assert found.relevance.shape == found.grid.shape == shape
    assert found.relevance.isfinite().all()
    assert found.relevance.std() > 0
    assert len(found.frames) == min(4, shape[0]) == len(found.steps) - 1
    assert found.steps[-1] == num_frames
    torch.testing.assert_close(found.probability, recogniser.predict(clip[None])[0])
    if num_frames == 1:
        assert found.frames.tolist() == [0]  # nothing can stand in for the only frame
    if name == "none":
        torch.testing.assert_close(found.orders[0], found.orders[1])
        assert found.similarity["head"] == found.similarity["head and adapters"]  # the head is all that is trained


@pytest.mark.parametrize("method", ["occlusion", "gradient"])
def test_the_map_in_bfloat16_is_near_that_in_float32(method):
    maps = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = build(toy("clip_vit_b16"), adapter("aim"), num_classes=3, num_frames=4, size=SIZE, dropout=0.0).eval()
        randomise(model)
        suit(model, precision, "cpu")
        clip = torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        recogniser = Recogniser(model, ["a", "b", "c"], Clip(4, 1, SIZE, "uniform"), Views(1, 1, SIZE))
        found = explain(recogniser, clip, 2, method=method, cells=3, batch_size=7, precision=precision)
        maps.append(found.relevance)
    assert not torch.equal(*maps)
    assert torch.cosine_similarity(*(each.double().flatten() for each in maps), 0) > 0.95
