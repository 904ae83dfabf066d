"""Families of trunks: ours, and one that only these tests know."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch import nn

from aim.adapters.interface import linears
from aim.engine.machine import sharding
from aim.engine.machine.distributed import World
from aim.engine.machine.hardware import suit
from aim.explain.gradients import gradient_x_activation
from aim.models import classifier
from aim.models.classifier import build, plainly
from aim.models.families import FAMILIES
from aim.models.family import VideoTrunk
from aim.models.float8 import Float8Linear
from aim.models.flops import gmacs_per_view
from tests.messages import refused
from tests.models import toys
from tests.models.toy_family import BACKBONE, TOY
from tests.models.toys import FRAMES, SIZE, adapter, composed, names, randomise

ADAPTERS = [name for name in names("adapter") if name != "timesformer" and not name.startswith("aim")]
TRUNKS = {"VisionTransformer": "clip_vit_b16", "Eva": "dinov3_vit_s16", "SwinTransformer": "swin_t"}
JOINT = {"ToyTrunk": "toy", "VideoViT": "vjepa21_b"}
EVERY = [family.trunk.__name__ for family in (*FAMILIES, TOY)]


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The toy, as one more entry of the tuple."""
    monkeypatch.setattr(classifier, "FAMILIES", (*FAMILIES, TOY))


def backbone(family):
    return BACKBONE if family == "ToyTrunk" else toys.toy((TRUNKS | JOINT)[family])


def model(family="ToyTrunk", name="aim", frames=FRAMES, size=SIZE, weights="random", **overrides):
    torch.manual_seed(0)
    settings = {"temporal": False} if family in JOINT and name == "aim" else {}
    settings = adapter(name, **(settings | overrides))
    cfg = replace(backbone(family), weights=str(weights))
    return build(cfg, settings, num_classes=5, num_frames=frames, size=size, dropout=0.0)


def video(frames=FRAMES, size=SIZE):
    return torch.rand(2, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", EVERY)
def test_a_family_keeps_what_the_seam_promises(family):
    made = model(family)
    ours = made.backbone
    assert isinstance(ours, VideoTrunk)
    assert len(ours.views) == len(ours.blocks) == len(ours.plain_blocks())
    assert [view.block for view in ours.views] == ours.plain_blocks()
    assert ours.num_frames == FRAMES // backbone(family).tubelet == ours.grid[0]
    assert all(linears(block) for block in ours.blocks)
    assert ours(video()).shape == (2, ours.num_frames, ours.dim)
    assert {view.joint for view in ours.views} == {family in JOINT} == {ours.order_aware}
    shapes = []
    for block in ours.blocks:
        block.register_forward_hook(lambda _, taken, given: shapes.append((taken[0].shape, given.shape)))
    with plainly(made):
        made(video())
    assert len(shapes) == len(ours.blocks)
    assert all(taken == given and taken[0] == 2 * ours.num_frames for taken, given in shapes)


@pytest.mark.parametrize("family", EVERY)
def test_tubelets_are_of_the_family(family):
    own = backbone(family).tubelet
    wrong = replace(backbone(family), tubelet=3)
    if family == "SwinTransformer":  # inflates by any number
        made = build(wrong, adapter(), num_classes=5, num_frames=6, size=SIZE, dropout=0.0)
        assert made.backbone.num_frames == 2
    else:
        with refused("backbone.tubelet=3"):
            build(wrong, adapter(), num_classes=5, num_frames=6, size=SIZE, dropout=0.0)
    if own > 1:
        with refused("num_frames=3", f"tubelet={own}", "2", "4"):
            model(family, frames=3)


@pytest.mark.parametrize("family", EVERY)
def test_another_size_is_taken_and_one_that_patches_do_not_divide_is_not(family):
    made = model(family, size=2 * SIZE)
    assert made(video(size=2 * SIZE)).shape == (2, 5)
    with refused("clip.size=30"):
        model(family, size=30)


@pytest.mark.parametrize("family", EVERY)
def test_float8_is_for_the_frozen_layers_of_its_blocks(family):
    made = model(family)
    expected = sum(len(linears(block)) for block in made.backbone.plain_blocks())
    suit(made, "fp8", "cpu")
    found = [name for name, part in made.named_modules() if isinstance(part, Float8Linear)]
    assert len(found) == expected
    assert not [name for name in found if "adapters" in name]


@pytest.mark.parametrize("family", EVERY)
def test_what_is_spread_over_ranks_are_its_blocks(family):
    made = model(family)
    frozen = [p for block in made.backbone.blocks for p in block.parameters() if not p.requires_grad]
    with refused("train.shard=true", f"{sum(p.nbytes for p in frozen) / 1e9:.2f}"):
        sharding.shard(made, World(0, 2, torch.device("cpu")), parts=1, least=2_000_000)


@pytest.mark.parametrize("family", JOINT)
@pytest.mark.parametrize("name", [*ADAPTERS, "aim"])
def test_adapters_train_on_a_joint_trunk_exactly_what_they_say(name, family):
    settings = {"drop_path": 0.0, "ratio": 0.5}  # nothing dropped, and wide enough that some ReLU is alive
    made = model(family, name, **{key: settings[key] for key in settings if key in composed("adapter", name)})
    assert gmacs_per_view(made) > 0
    randomise(made)
    before = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    nn.functional.cross_entropy(made(video()), torch.tensor([0, 1])).backward()
    torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.1).step()
    assert {key for key, x in made.state_dict().items() if not torch.equal(x, before[key])} == set(made.trainable)
    clip = (255 * rearrange(video()[0], "c t h w -> t c h w")).byte()
    assert gradient_x_activation(made, clip, 1).shape == made.backbone.grid


@pytest.mark.parametrize("name", ["adaptformer", "adatad", "aim", "lora", "st_adapter"])
def test_adapters_begin_as_the_joint_trunk_and_see_the_order_of_frames(name, tmp_path):
    torch.save({"encoder": public(model(name="none"))}, tmp_path / "toy.pt")
    begins_and_sees_order("ToyTrunk", name, tmp_path / "toy.pt")


@pytest.mark.parametrize("name", ["adaptformer", "adatad", "aim", "lora", "st_adapter"])
def test_adapters_begin_as_a_published_video_trunk_and_see_the_order_of_frames(name, tmp_path):
    torch.save(published(model("VideoViT", "none")), tmp_path / "toy.pt")
    begins_and_sees_order("VideoViT", name, tmp_path / "toy.pt")


def published(made):
    """The tensors of a V-JEPA 2.1 under Meta's names."""
    trunk = made.backbone.trunk
    images = {f"patch_embed_img.proj.{key}": x[:, :, :1] if x.ndim == 5 else x
              for key, x in trunk.patch_embed.proj.state_dict().items()}  # fmt: skip
    state = trunk.state_dict() | images
    state |= dict.fromkeys(("video_mod_embed", "img_mod_embed"), state["modality"])
    del state["modality"]
    return {name.replace("norm.", "norms_block.3.", name.startswith("norm.")): x for name, x in state.items()}


def begins_and_sees_order(family, name, path):
    made, plain = (model(family, each, weights=path).eval().backbone for each in (name, "none"))
    with torch.no_grad():
        torch.testing.assert_close(made(video()), plain(video()))
        randomise(made)
        assert (made(video()) - plain(video())).abs().max() > 1e-3
        for each in (made, plain):
            assert (each(video()).mean(1) - each(video().flip(2)).mean(1)).abs().max() > 1e-3


@pytest.mark.parametrize("family", JOINT)
@pytest.mark.parametrize("memory", ["fast", "lean", "smallest"])
def test_what_is_kept_changes_nothing(memory, family):
    made = model(family)
    randomise(made)
    made.backbone.memory = memory
    made(video()).sum().backward()
    found = torch.cat([p.grad.flatten() for p in made.parameters() if p.requires_grad])
    again = model(family)
    randomise(again)
    again(video()).sum().backward()
    expected = torch.cat([p.grad.flatten() for p in again.parameters() if p.requires_grad])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", JOINT)
@pytest.mark.parametrize("settings", [{"name": "aim", "temporal": True}, {"name": "timesformer"}], ids=str)
def test_attention_over_time_is_refused_where_it_is_joint(settings, family):
    with refused("adapter.temporal=false", "adapter=aim"):
        model(family, **settings)
    if family == "VideoViT":
        with refused("adapter.temporal=false"):
            model(family).backbone.views[0].attend_time(torch.zeros(4, 16, 32))


def public(made):
    """The tensors of a toy's trunk under its publisher's names."""
    return {key.replace("blocks.", "layers."): x for key, x in made.backbone.trunk.state_dict().items()}


def test_a_file_of_its_own_names_is_loaded_strictly(tmp_path):
    first = public(model(name="none"))
    randomised = {key: torch.rand_like(x) for key, x in first.items()}
    torch.save({"target_encoder": randomised, "encoder": first, "opt": {}, "epoch": 3}, tmp_path / "toy.pt")
    made = model(name="none", weights=tmp_path / "toy.pt")
    loaded = made.backbone.trunk.state_dict()
    assert all(torch.equal(loaded[key.replace("layers.", "blocks.")], x) for key, x in randomised.items())
    assert made.fingerprint != "random"
    assert set(made.saved_names()) == {"head.weight", "head.bias"}
    torch.save({"encoder": first | {"predictor.weight": torch.ones(1)}}, tmp_path / "more.pt")
    with refused("more.pt", "predictor.weight"):
        model(weights=tmp_path / "more.pt")
    with refused("toy_tiny", "https://toy.example", "backbone.weights"):
        model(weights="pretrained")


def test_a_name_that_nobody_knows_is_compared_with_its_own_too():
    with refused("backbone.name='toy_tin'", "toy_tiny"):
        build(replace(BACKBONE, name="toy_tin"), adapter(), num_classes=5, num_frames=4, size=SIZE, dropout=0.0)
    wrong = replace(BACKBONE, options={"colour": 3})
    with refused("toy_tiny", "backbone.options={'colour': 3}"):
        build(wrong, adapter(), num_classes=5, num_frames=4, size=SIZE, dropout=0.0)
