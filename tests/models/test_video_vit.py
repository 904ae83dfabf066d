"""V-JEPA 2, 2.1 and VideoMAE against transformers, and the files and shapes that they refuse."""

from dataclasses import replace

import pytest
import torch
import transformers
from einops import rearrange

from aim.models import video_vit
from aim.models.classifier import build
from aim.models.families import FAMILIES
from aim.models.trunk import load_trunk
from aim.weights.trunk import check_fit, read_tensors
from scripts.convert_official import probe_names
from tests.messages import named, refused, unnamed
from tests.models.checks import tuned
from tests.models.test_golden_video import Reading
from tests.models.toys import adapter, composed, randomise, toy, video_trunks

PUBLISHED = [name for name in video_trunks() if composed("backbone", name).weights == "pretrained"]
TOY = {"embed_dim": 32, "depth": 3, "num_heads": 2, "patch_size": 8}
SHAPES = [(4, 32), (8, 16), (2, 8), (6, 40)]  # frames and pixels, square as theirs are
THEIRS = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 8,
    "tubelet_size": 2,
    "layer_norm_eps": 1e-6,
}


def clips(frames=4, height=32, width=32):
    return torch.rand(2, 3, frames, height, width, generator=torch.Generator().manual_seed(1))


def vjepa2(frames=4, size=32, kind=transformers.VJEPA2Model):
    cfg = transformers.VJEPA2Config(
        **THEIRS,
        crop_size=size,
        frames_per_clip=frames,
        mlp_ratio=4.0,
        num_pooler_layers=3,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        num_labels=5,
    )
    model = kind(cfg).eval()
    randomise(model)
    return model


def videomae(kind=transformers.VideoMAEModel, frames=4, size=32, **more):
    cfg = transformers.VideoMAEConfig(
        **THEIRS, image_size=size, num_frames=frames, intermediate_size=128, num_labels=5, **more
    )
    model = kind(cfg).eval()
    randomise(model)
    return model


def ours(name, path, frames=4, height=32, width=32, options=TOY, reading=True):
    """Our model of such clips; `reading`, its `frozen` gives all tokens."""
    trunk = load_trunk(name, str(path), 32, options, FAMILIES)
    trunk.module.img_size = (height, width)
    trunk.family.set_tubelet(trunk.module, 2)
    config = Reading() if reading else adapter("none")
    return trunk.family.as_video(trunk.module, config, frames // 2, ("clip", "clip")).eval()


def compare(model, clip, theirs):
    """Our tokens beside theirs, "b n d"; both get their gradients."""
    tokens = rearrange(model.frozen(clip)[-1], "b t n d -> b (t n) d")
    upstream = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(2))
    for each in (tokens, theirs):
        (each * upstream).sum().backward()
    assert theirs.std() > 0.01
    close(tokens, theirs)


def close(one, other):
    assert (one - other).norm() < 1e-5 * other.norm()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_vjepa2_is_that_of_transformers(tmp_path, shape):
    frames, size = shape
    theirs = vjepa2(frames, size)
    theirs.save_pretrained(tmp_path)
    model = ours("vjepa2_large", tmp_path / "model.safetensors", frames, size, size)
    clip = clips(frames, size, size)
    output = theirs(rearrange(clip, "b c t h w -> b t c h w"), skip_predictor=True).last_hidden_state
    compare(model, clip, output)
    encoder = theirs.encoder
    close(model.trunk.patch_embed.proj.weight.grad, encoder.embeddings.patch_embeddings.proj.weight.grad)
    close(model.trunk.blocks[0].attn.qkv.weight.grad[:32], encoder.layer[0].attention.query.weight.grad)


@pytest.mark.parametrize("shape", [(4, 32), (8, 16)], ids=str)
def test_videomae_is_that_of_transformers(tmp_path, shape):
    frames, size = shape
    theirs = videomae(frames=frames, size=size, use_mean_pooling=False)
    theirs.save_pretrained(tmp_path)
    model = ours("videomae_base", tmp_path / "model.safetensors", frames, size, size)
    clip = clips(frames, size, size)
    output = theirs(rearrange(clip, "b c t h w -> b t c h w")).last_hidden_state
    compare(model, clip, output)
    attention = theirs.encoder.layer[0].attention.attention
    close(model.trunk.blocks[0].attn.qkv.weight.grad[32:64], attention.key.weight.grad)
    close(model.trunk.blocks[0].attn.qkv.bias.grad[64:], attention.value.bias.grad)


def test_the_pooled_features_of_videomae_are_those_under_its_own_head(tmp_path):
    theirs = videomae(transformers.VideoMAEForVideoClassification)
    theirs.fc_norm.eps = 1e-6  # as its authors have it
    theirs.save_pretrained(tmp_path)
    model = ours("videomae_base", tmp_path / "model.safetensors", reading=False)
    with torch.no_grad():
        logits = theirs.classifier(model(clips()).mean(1))
        close(logits, theirs(rearrange(clips(), "b c t h w -> b t c h w")).logits)


def test_vjepa21_is_that_of_transformers_with_its_tables_put_right(tmp_path, monkeypatch):
    """Tables with one angle a pair, positions of a grid of 32, a vector of clips, and the last of norms."""
    from transformers.models.vjepa2 import modeling_vjepa2

    theirs = vjepa2(8)
    state = {name: x for name, x in theirs.state_dict().items() if not name.startswith("predictor")}
    vector = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(3))
    norm = {kind: state.pop(f"encoder.layernorm.{kind}") for kind in ("weight", "bias")}
    state |= {f"norms_block.3.{kind}": x for kind, x in norm.items()} | {"norms_block.0.weight": torch.ones(32)}
    state |= {"video_mod_embed": vector, "img_mod_embed": vector + 1}
    state |= {f"patch_embed_img.proj.{kind}": torch.zeros(*shape) for kind, shape in IMAGE.items()}
    torch.save(state, tmp_path / "vjepa21.pt")

    def turned(x, pos):
        width = x.shape[-1]
        angle = pos.float()[..., None] * 10_000 ** (-torch.arange(width // 2) / (width / 2))
        sine, cosine = (f(angle).repeat_interleave(2, -1) for f in (torch.sin, torch.cos))
        other = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
        return x * cosine + other * sine

    def scaled(self, x, masks=None):
        number = torch.arange(4 * 2 * 6)
        return number // 12, number % 12 // 6 * 31.0, number % 6 * 31 / 5  # 31: 256 pixels are 32 patches of 8

    monkeypatch.setattr(modeling_vjepa2, "rotate_queries_or_keys", turned)
    monkeypatch.setattr(modeling_vjepa2.VJEPA2RopeAttention, "get_position_ids", scaled)
    embed = theirs.encoder.embeddings.forward
    monkeypatch.setattr(theirs.encoder.embeddings, "forward", lambda *x, **more: embed(*x, **more) + vector)
    clip = clips(8, 16, 48)
    output = theirs(rearrange(clip, "b c t h w -> b t c h w"), skip_predictor=True).last_hidden_state
    compare(ours("vjepa21_base", tmp_path / "vjepa21.pt", 8, 16, 48), clip, output)


IMAGE = {"weight": (32, 3, 1, 8, 8), "bias": (32,)}


def public(name, path, wrap="ema_encoder", **options):
    """Write a random trunk under its publisher's names; returns the tensors."""
    made = load_trunk(name, "random", 32, TOY | options, FAMILIES).module
    state = {
        key.replace("modality_img", "img_mod_embed").replace("modality", "video_mod_embed"): x
        for key, x in made.state_dict().items()
    }
    if name.startswith("vjepa21"):
        norm = {key: state.pop(key) for key in list(state) if key.startswith("norm.")}
        state |= {f"norms_block.{i}.{key[5:]}": x + (i < 3) for key, x in norm.items() for i in range(4)}
    torch.save({wrap: {f"module.backbone.{key}": x for key, x in state.items()}, "epoch": 3}, path)
    return state


def load(name, path, **options):
    return load_trunk(name, str(path), 32, TOY | options, FAMILIES).module


def test_what_is_left_out_of_a_file_is_named_and_all_else_counts(tmp_path, capsys):
    state = public("vjepa21_base", tmp_path / "b.pt")
    loaded = load("vjepa21_base", tmp_path / "b.pt").state_dict()
    assert torch.equal(loaded["norm.weight"], state["norms_block.3.weight"])
    assert torch.equal(loaded["modality_img"], state["img_mod_embed"])
    named(capsys.readouterr().err, "b.pt", "backbone.norms_block.0.weight", "(6)")
    public("vjepa2_large", tmp_path / "l.pt", wrap="target_encoder")
    load("vjepa2_large", tmp_path / "l.pt")
    assert not capsys.readouterr().err
    foreign = {"ema_encoder": state | {"registers": torch.zeros(1)}}
    torch.save(foreign, tmp_path / "more.pt")
    with refused("more.pt", "registers"):
        load("vjepa21_base", tmp_path / "more.pt")
    del state["blocks.1.attn.proj.bias"]
    torch.save({"ema_encoder": state}, tmp_path / "less.pt")
    with refused("less.pt", "blocks.1.attn.proj.bias"):
        load("vjepa21_base", tmp_path / "less.pt")


def test_a_file_of_another_version_kind_or_size_is_told_apart(tmp_path):
    public("vjepa2_large", tmp_path / "l.pt")
    public("vjepa21_base", tmp_path / "b.pt")
    videomae().save_pretrained(tmp_path)
    with refused("l.pt", "V-JEPA 2", "V-JEPA 2.1"):  # the same shapes, and other tables
        load("vjepa21_large", tmp_path / "l.pt")
    torch.save({"patch_embed.proj.weight": torch.zeros(8, 3, 16, 16)}, tmp_path / "image.pt")
    with refused("image.pt", "V-JEPA 2.1") as told:
        load("vjepa21_base", tmp_path / "image.pt")
    assert "V-JEPA 2," not in str(told.value)
    with refused("b.pt", "V-JEPA 2.1", "VideoMAE"):
        load("videomae_base", tmp_path / "b.pt")
    with refused("model.safetensors", "VideoMAE", "V-JEPA 2"):
        load("vjepa2_large", tmp_path / "model.safetensors")
    with refused("b.pt", "3", "4"):
        load("vjepa21_base", tmp_path / "b.pt", depth=4)
    with refused("b.pt", "32", "64"):
        load("vjepa21_base", tmp_path / "b.pt", embed_dim=64)
    torch.save({"ema_encoder": {"fc.weight": torch.zeros(2)}}, tmp_path / "other.pt")
    with refused("other.pt"):
        load("vjepa2_large", tmp_path / "other.pt")


def test_the_names_of_videomae_files_are_known(tmp_path):
    """Its authors' from training (encoder and decoder) and tuned (V2), mmaction2's, transformers' new and old."""
    theirs = videomae(use_mean_pooling=False)
    theirs.save_pretrained(tmp_path)
    tensors = read_tensors(tmp_path / "model.safetensors")
    expected = load("videomae_base", tmp_path / "model.safetensors").state_dict()
    authors = {key: x for key, x in expected.items() if not key.endswith("qkv.bias")}
    for i in range(3):
        q, _, v = expected[f"blocks.{i}.attn.qkv.bias"].chunk(3)
        authors |= {f"blocks.{i}.attn.q_bias": q, f"blocks.{i}.attn.v_bias": v}
    pretraining = {f"encoder.{key}": x for key, x in authors.items()}
    decoder = ("decoder.norm.weight", "encoder_to_decoder.weight", "mask_token", "encoder.mask_token")
    more = dict.fromkeys(decoder, torch.ones(2))
    norms = {key.replace("norm.", "fc_norm."): x for key, x in authors.items() if key.startswith("norm.")}
    tuned = {key: x for key, x in authors.items() if not key.startswith("norm.")} | norms | {"head.bias": torch.ones(2)}
    old = {key.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): x for key, x in tensors.items()}
    swaps = {"embed.proj.": "embed.projection.", "fc1": "layers.0.0", "fc2": "layers.1", "head.": "cls_head.fc_cls."}
    mmaction = tuned | {"pos_embed": torch.ones(2)}
    for ours, mm in swaps.items():
        mmaction = {key.replace(ours, mm): x for key, x in mmaction.items()}
    files = {
        "mmaction2": {
            "state_dict": {f"{'' if 'cls_head' in key else 'backbone.'}{key}": x for key, x in mmaction.items()}
        },
        "pretraining": {"model": pretraining | more, "epoch": 3},
        "tuned": {"module": tuned},
        "v2": {f"model.{key}": x for key, x in tuned.items()},
        "old": {f"videomae.{key}": x for key, x in old.items()} | {"classifier.bias": torch.ones(2)},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pt")
        found = load("videomae_base", tmp_path / f"{name}.pt").state_dict()
        assert all(torch.equal(found[key], x) for key, x in expected.items()), name


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_config_builds_reads_clips_and_says_where_its_weights_are(name, capsys):
    cfg = toy(name)
    with torch.device("meta"):
        made = build(cfg, adapter("none"), num_classes=5, num_frames=4, size=32, dropout=0.0)
        assert made(torch.empty(2, 3, 4, 32, 32)).shape == (2, 5)
    unnamed(capsys.readouterr().err, cfg.licence.split()[0])
    with refused("backbone.weights=pretrained", "backbone.weights=FILE", "https://"):
        toy(name, "pretrained").check_weights()


def test_the_licence_is_said_where_weights_are_loaded(tmp_path, capsys):
    videomae(use_mean_pooling=False).save_pretrained(tmp_path)
    cfg = toy("videomae_b", str(tmp_path / "model.safetensors"))
    build(cfg, adapter("none"), num_classes=5, num_frames=4, size=32, dropout=0.0)
    named(capsys.readouterr().err, "videomae_base", "4.0")


def test_an_image_is_read_by_patches_of_its_own(tmp_path):
    public("vjepa21_base", tmp_path / "b.pt")
    with torch.no_grad():
        made = build(
            replace(toy("vjepa21_b", str(tmp_path / "b.pt")), tubelet=1),
            adapter("full"), num_classes=5, num_frames=1, size=32, dropout=0.0,
        )  # fmt: skip
        assert made.backbone.trunk.patch_embed.proj.weight.shape == (32, 3, 1, 8, 8)
        assert made(torch.rand(2, 3, 1, 32, 32)).shape == (2, 5)
    assert not [key for key in made.state_dict() if "_img" in key]
    for name, frames, pieces in (("vjepa21_b", 2, ["clip.num_frames=1"]), ("vjepa2_l", 1, ["backbone.tubelet=1", "2"])):
        with refused(*pieces):
            build(
                replace(toy(name), tubelet=1), adapter("none"),
                num_classes=5, num_frames=frames, size=32, dropout=0.0,
            )  # fmt: skip


def test_a_perturbed_position_is_noticed():
    grid = (2, 4, 4)
    tiled, paired = (video_vit.rotations(grid, 16, trained, tiled=trained is None) for trained in (None, 16))
    assert tiled.shape == paired.shape == (32, 32)
    assert (tiled - paired).abs().max() > 0.5
    assert torch.isfinite(video_vit.rotations((2, 1, 1), 16, 16, tiled=False)).all()


def test_the_probe_of_transformers_is_ours(tmp_path):
    """A file with trunk and probe: logits of a whole model."""
    theirs = vjepa2(kind=transformers.VJEPA2ForVideoClassification)
    for part in theirs.pooler.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.eps = 1e-5  # as Meta has it
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    cfg = toy("vjepa2_l", str(path))
    made = build(cfg, adapter("vjepa_probe", heads=2), num_classes=5, num_frames=4, size=32, dropout=0.0).eval()
    found = probe_names(read_tensors(path), path)
    state = made.state_dict()
    check_fit({name: state[name] for name in made.saved_names()}, found, str(path))
    made.load_state_dict(found, strict=False)
    with torch.no_grad():
        close(made(clips()), theirs(rearrange(clips(), "b c t h w -> b t c h w")).logits)


def layers(dim, hidden):
    """The parameters of an attention's q, k, v and projection, and of two layers, with their biases."""
    return 4 * (dim + 1) * dim + (dim + 1) * hidden + (hidden + 1) * dim


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("none", {}, 0),
        # Three blocks with two norms each; a block without a projection; the query.
        ("vjepa_probe", {}, 4 * (layers(768, 3072) + 4 * 768) - 769 * 768 + 768),
        ("lora", {"rank": 16}, 12 * 16 * (4 * 2 * 768 + 2 * (768 + 3072))),
        ("adatad", {}, 12 * (769 * 192 + 4 * 192 + 193 * 192 + 193 * 768 + 1)),
        ("st_adapter", {}, 12 * (769 * 384 + 4 * 384 + 385 * 768)),
        ("adaptformer", {}, 12 * (769 * 64 + 65 * 768)),
        ("aim", {"temporal": False}, 12 * 2 * (769 * 192 + 193 * 768) + 2 * 768),
        ("full", {}, 86_828_544 - 768 * (1 + 769)),  # without the images' vector, and patches with a bias
    ],
    ids=str,
)
def test_what_is_tuned_is_counted_by_formula(name, overrides, expected):
    assert tuned(name, "vjepa21_b", **overrides) == expected
