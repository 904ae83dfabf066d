"""The classifier's contract: inputs, outputs, trained and saved tensors."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from aim.adapters.interface import Readout, linears
from aim.adapters.plain import Plain
from aim.models.classifier import build, plainly
from aim.models.flops import gmacs_per_view
from tests.messages import refused
from tests.models.test_trunks import FAMILIES
from tests.models.toys import FRAMES, SIZE, adapter, composed, names, randomise, toy


def model(trunk="clip_vit_b16", adapter_config=None, frames=FRAMES, dropout=0.0):
    return build(toy(trunk), adapter_config or adapter(), num_classes=5, num_frames=frames, size=SIZE, dropout=dropout)


def clips(frames=FRAMES, size=SIZE):
    return torch.randint(0, 256, (2, frames, 3, size, size), dtype=torch.uint8)


def test_uint8_video_becomes_logits():
    net = model().eval()
    video = net.preprocess(clips())
    assert (video.shape, video.dtype) == ((2, 3, FRAMES, SIZE, SIZE), torch.float32)
    assert net(video).shape == (2, 5)


def test_preprocessing_is_the_trunks_own():
    net, video = model(), clips()
    mean, std = (torch.tensor(x) for x in (toy("clip_vit_b16").mean, toy("clip_vit_b16").std))
    expected = (video.double() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(net.preprocess(video).double(), expected.transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_frames_of_another_scale_are_an_error():
    for video in (clips().float() / 255, clips().int()):
        with refused(str(video.dtype), "uint8", "0", "255"):
            model().preprocess(video)


@pytest.mark.parametrize("trunk", ["clip_vit_b16", "swin_t"])
@pytest.mark.parametrize(
    "shape", [(2, 3, 2 * FRAMES, SIZE, SIZE), (2, 3, FRAMES, 2 * SIZE, SIZE), (3, FRAMES, SIZE, SIZE)]
)
def test_a_clip_of_another_length_or_size_is_an_error(trunk, shape):
    with refused(str(shape), f"b 3 {FRAMES} {SIZE} {SIZE}", "clip.num_frames", "clip.size"):
        model(trunk)(torch.zeros(shape))
    if len(shape) == 5:
        with refused(str(shape), "clip.num_frames", "clip.size"):
            model(trunk).preprocess(torch.zeros(shape, dtype=torch.uint8).transpose(1, 2))


def test_clips_do_not_mix():
    net = model().eval()
    randomise(net)
    video = net.preprocess(clips())
    with torch.no_grad():
        torch.testing.assert_close(net(video)[:1], net(video[:1]))


def test_the_head_has_dropout_in_training_alone():
    net = model(dropout=0.5)
    video = net.preprocess(clips())
    assert not torch.equal(net.train()(video), net(video))
    assert torch.equal(net.eval()(video), net(video))


def biased(trunk):
    """A model whose logits lie close together, far from zero: there bfloat16 has steps of 1/16."""
    net = model(trunk, adapter("none"), dropout=0.5)
    randomise(net.backbone)
    nn.init.constant_(net.head.bias, 8.0)
    return net


@pytest.mark.parametrize("trunk", FAMILIES)
@pytest.mark.parametrize("training", [False, True])
def test_the_head_is_of_float32_under_autocast(trunk, training):
    net = biased(trunk).train(training)
    video = net.preprocess(torch.randint(0, 256, (64, FRAMES, 3, SIZE, SIZE), dtype=torch.uint8))
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        logits = net(video)
        torch.manual_seed(0)
        pooled = net.backbone(video).float().mean(1)
        pooled = nn.functional.dropout(pooled, 0.5, training)
        rounded = net.head(pooled)
        assert torch.is_autocast_enabled("cpu")
    assert logits.dtype == torch.float32
    assert torch.equal(logits, net.head(pooled))
    first, second = logits.topk(2).values.unbind(1)
    assert (first > second).all()
    assert not torch.equal(logits, rounded.float())  # a bfloat16 head's result for the same features


def test_normalisation_constants_are_in_no_checkpoint():
    assert not [name for name in model().state_dict() if name in ("mean", "std")]


FITTING = [(f, a) for f in FAMILIES for a in names("adapter") if (f, a) != ("swin_t", "timesformer")]


@pytest.mark.parametrize(("name", "adapter_name"), FITTING)
def test_every_adapter_builds_on_every_family_without_memory(name, adapter_name):
    with torch.device("meta"):
        net = model(name, adapter(adapter_name))
        assert net(torch.empty(2, 3, FRAMES, SIZE, SIZE)).shape == (2, 5)
    assert gmacs_per_view(net) > 0
    assert {"head.weight", "head.bias"} <= set(net.trainable) <= set(net.saved_names())


@pytest.mark.parametrize(("trunk", "name"), [pair for pair in FITTING if pair[1] != "aim"])  # aim: test_trunks.py
def test_a_step_changes_exactly_the_trainable_set(trunk, name):
    settings = {"drop_path": 0.0, "ratio": 0.5}  # nothing dropped, and wide enough that some ReLU is alive
    net = model(trunk, adapter(name, **{key: settings[key] for key in settings if key in composed("adapter", name)}))
    randomise(net)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    nn.functional.cross_entropy(net(net.preprocess(clips())), torch.tensor([0, 1])).backward()
    torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1).step()
    changed = {key for key, tensor in net.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == set(net.trainable)


@pytest.mark.parametrize(
    ("name", "setting", "expected"),
    [
        ("aim", {"ratio": 0.0}, ["adapter.ratio=0"]),
        ("aim", {"ratio": -1.0}, ["adapter.ratio=-1"]),
        ("aim", {"drop_path": 1.0}, ["adapter.drop_path", "1", "0"]),
        ("aim", {"drop_path": -0.5}, ["adapter.drop_path", "-0.25", "0", "1"]),
        ("adaptformer", {"ratio": 0.001}, ["adapter.ratio=0.001"]),
        ("st_adapter", {"ratio": 0.0}, ["adapter.ratio=0"]),
        ("st_adapter", {"kernel": [-1, 1, 1]}, ["adapter.kernel=[-1, 1, 1]", "[3, 1, 1]"]),
        ("side", {"ratio": -0.5}, ["adapter.ratio=-0.5"]),
        ("side", {"kernel": -1}, ["adapter.kernel=-1"]),
        ("lora", {"rank": 0}, ["adapter.rank=0"]),
        ("attentive_probe", {"depth": 0}, ["adapter.depth=0"]),
    ],
)
def test_a_setting_that_makes_no_adapter_is_an_error(name, setting, expected):
    with refused(*expected):
        model(adapter_config=adapter(name, **setting))


@pytest.mark.parametrize(
    "setting", [{"std": [0.0] * 3}, {"mean": [0.5]}, {"drop_path_axes": ["clip"]}, {"tubelet": 0}], ids=str
)
def test_a_setting_that_makes_no_trunk_is_an_error(setting):
    with refused(f"{next(iter(setting))}={next(iter(setting.values()))}", "backbone"):
        replace(toy("clip_vit_b16"), **setting)


def test_a_dropout_of_everything_is_an_error():
    with refused("dropout=1"):
        model(dropout=1.0)


def test_blocks_without_time_are_not_chosen_in_silence():
    with refused("adapter.blocks='every 2'", "adapter.temporal=false"):
        model("swin_t", adapter(blocks="every 2"))
    model("swin_t", adapter(blocks="every 2", temporal=False))


def test_divided_attention_needs_a_vit():
    with refused("ViT", "adapter=timesformer"):
        model("swin_t", adapter("timesformer"))


def test_frames_that_tubelets_do_not_divide_are_an_error():
    with refused("num_frames=3", "tubelet=2", "4"):
        model("swin_t", frames=3)


def test_the_linear_layers_of_a_block_are_in_reach():
    class Doubled(Plain):
        def __call__(self, view, place):
            for name, layer in linears(view.block).items():
                view.block.set_submodule(name, nn.Sequential(layer, nn.Identity()))
            return view.block

    for trunk, expected in (("clip_vit_b16", 4), ("dinov3_vit_s16", 4), ("eva02_vit_b14", 7), ("swin_t", 4)):
        blocks = [m for m in model(trunk, Doubled()).modules() if hasattr(m, "norm1") and hasattr(m, "attn")]
        for block in blocks:
            assert sum(isinstance(module, nn.Sequential) for module in block.modules()) == expected


class Mean(Readout):
    """Reads the mean token of all blocks, and remembers the shapes."""

    def __init__(self, dims):
        super().__init__()
        self.dim, self.shapes = 3, []
        self.project = nn.ModuleList(nn.Linear(dim, 3) for dim in dims)

    def forward(self, blocks, last):
        self.shapes = [tuple(tokens.shape) for tokens in (*blocks, last)]
        return sum(project(tokens.mean(2)) for project, tokens in zip(self.project, blocks, strict=True))


class Reading(Plain):
    def readout(self, dims, tokens):
        return Mean(dims)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_a_readout_sees_the_tokens_of_every_block(trunk):
    net = model(trunk, Reading(trainable=["*.adapters.*"]))
    net(net.preprocess(clips())).sum().backward()
    shapes = net.backbone.adapters["readout"].shapes
    prefix = net.backbone.trunk.num_prefix_tokens if trunk != "swin_t" else 0
    if trunk == "swin_t":
        assert shapes == [(2, 2, 64, 16), (2, 2, 16, 32), (2, 2, 16, 32)]
    else:
        assert shapes == [(2, FRAMES, 16 + prefix, 32)] * 4
    assert all(name.startswith(("backbone.adapters.readout", "head")) for name in net.trainable)
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())


def test_a_readouts_last_tokens_are_what_the_trunk_pools():
    class Last(Readout):
        dim = 32

        def forward(self, blocks, last):
            return last[:, :, 0]

    class ReadLast(Plain):
        def readout(self, dims, tokens):
            return Last()

    net, plain = model(adapter_config=ReadLast()).eval(), model(adapter_config=Plain()).eval()
    plain.load_state_dict(net.state_dict())
    video = net.preprocess(clips())
    with plainly(plain):
        assert torch.equal(net(video), plain(video))
