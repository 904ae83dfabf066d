"""Weight files of every format, written at toy size by the libraries, against their own image features."""

import argparse
import pickle
from functools import partial
from unittest.mock import Mock

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from timm.models import _builder

from aim.engine.trained.checkpoint import put_tensors
from aim.models import families
from aim.models import trunk as trunks
from aim.models.classifier import build
from aim.weights import hub
from aim.weights import trunk as files
from aim.weights.trunk import PER_FRAME, fingerprint, read_tensors, stretch_time
from tests.messages import refused
from tests.models.test_trunks import FAMILIES
from tests.models.toys import FRAMES, SIZE, adapter, randomise, toy

CLIP = "vit_base_patch16_clip_quickgelu_224.openai"
OPTIONS = {"img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
load_trunk = partial(trunks.load_trunk, families=families.FAMILIES)
TEXT = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}


def images(size=SIZE):
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1))


def features(path, name=CLIP, size=SIZE, options=OPTIONS):
    trunk = load_trunk(name, str(path), size, options).module.eval()
    with torch.no_grad():
        return trunk(images(size))


def assert_same(ours, theirs):
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def openai_clip():
    """A whole CLIP of open_clip, text tower included, with OpenAI's activation."""
    vision = {"image_size": SIZE, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
    model = open_clip.model.CLIP(16, vision, TEXT, quick_gelu=True).eval()
    randomise(model)
    return model


def their_features(model):
    with torch.no_grad():
        return model.encode_image(images())


def test_open_clip_state_dict(tmp_path):
    model = openai_clip()
    torch.save(model.state_dict(), tmp_path / "open_clip.pt")
    assert_same(features(tmp_path / "open_clip.pt") @ model.visual.proj.detach(), their_features(model))


def test_open_clip_training_checkpoint(tmp_path):
    model = openai_clip()
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 1, "name": "toy", "state_dict": state}, tmp_path / "epoch_1.pt")
    assert_same(features(tmp_path / "epoch_1.pt") @ model.visual.proj.detach(), their_features(model))


def test_open_clip_safetensors(tmp_path):
    model = openai_clip()
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    assert_same(features(tmp_path / "open_clip_model.safetensors") @ model.visual.proj.detach(), their_features(model))


@pytest.mark.filterwarnings(
    "ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning"
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_openai_torchscript_archive(tmp_path, dtype):
    model = openai_clip().to(dtype)
    traced = torch.jit.trace_module(model, {"encode_image": images().to(dtype)}, check_trace=False)
    traced.save(tmp_path / "ViT-toy.pt")
    rounded = openai_clip()
    rounded.load_state_dict(model.state_dict())
    assert_same(features(tmp_path / "ViT-toy.pt") @ rounded.visual.proj.detach(), their_features(rounded))
    read = read_tensors(tmp_path / "ViT-toy.pt")
    expected = traced.state_dict()
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], expected[name]) and read[name].dtype == dtype for name in read)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_the_code_of_a_torchscript_archive_is_never_loaded(tmp_path, monkeypatch):
    class Loud(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, x):
            return x * self.weight

    path = tmp_path / "loud.pt"
    torch.jit.script(Loud()).save(path)
    monkeypatch.setattr(torch.jit, "load", lambda *args, **kwargs: pytest.fail("torch.jit.load"))
    assert torch.equal(read_tensors(path)["weight"], torch.ones(2))


def test_a_checkpoint_of_ours_is_no_trunk(tmp_path):
    save_file({"head.weight": torch.ones(2)}, tmp_path / "best.safetensors", {"format": "aim-video 1"})
    with refused("best.safetensors", "checkpoint=FILE", "init=FILE"):
        read_tensors(tmp_path / "best.safetensors")


def test_hugging_face_clip(tmp_path):
    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
        projection_dim=16,
    )
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        theirs = model(images()).image_embeds
        assert_same(model.visual_projection(features(tmp_path / "model.safetensors")), theirs)


def test_hugging_face_clip_with_its_text_tower(tmp_path):
    vision = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIZE,
        "patch_size": 8,
    }
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 16,
    }
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)
    model = transformers.CLIPModel(config).eval()
    randomise(model)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with torch.no_grad():
        theirs = model.vision_model(pixel_values=images()).pooler_output
    assert_same(features(tmp_path / "pytorch_model.bin"), theirs)


def image_model(name, options=OPTIONS, **more):
    model = timm.create_model(name, **options, **more).eval()
    randomise(model)
    return model


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_timm_file_with_its_head(tmp_path, suffix):
    model = image_model("vit_base_patch16_224", num_classes=7)
    path = tmp_path / f"timm.{suffix}"
    save_file(model.state_dict(), path) if suffix == "safetensors" else torch.save(
        {"state_dict": model.state_dict()}, path
    )
    with torch.no_grad():
        theirs = model.forward_head(model.forward_features(images()), pre_logits=True)
    assert_same(features(path, "vit_base_patch16_224"), theirs)


def test_dino_file_and_training_checkpoint(tmp_path):
    model = image_model("vit_small_patch16_224.dino", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "dino_pretrain.pth")
    teacher = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    teacher |= {"head.mlp.0.weight": torch.ones(3), "head.last_layer.weight_g": torch.ones(3)}
    student = {f"module.{name}": torch.zeros_like(tensor) for name, tensor in teacher.items()}
    arguments = argparse.Namespace(arch="vit_small")
    torch.save({"student": student, "teacher": teacher, "args": arguments}, tmp_path / "dino_full_checkpoint.pth")
    with torch.no_grad():
        theirs = model(images())
    for name in ("dino_pretrain", "dino_full_checkpoint"):
        assert_same(features(tmp_path / f"{name}.pth", "vit_small_patch16_224.dino"), theirs)


def test_dinov2_with_registers(tmp_path):
    name = "vit_small_patch14_reg4_dinov2.lvd142m"
    model = image_model(name, num_classes=0)
    public = model.state_dict()
    # The public file holds the class token's position separately, and a mask token.
    public["register_tokens"] = public.pop("reg_token")
    position = torch.full((1, 1, 32), 0.25)
    public["pos_embed"] = torch.cat([position, public["pos_embed"]], 1)
    public["cls_token"] = public["cls_token"] - position
    public["mask_token"] = torch.zeros(1, 32)
    torch.save(public, tmp_path / "dinov2.pth")
    with torch.no_grad():
        assert_same(features(tmp_path / "dinov2.pth", name), model(images()))


def test_dinov3(tmp_path):
    name = "vit_small_patch16_dinov3.lvd1689m"
    model = image_model(name, num_classes=0)
    swaps = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    public = {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.ones(4)}
    for key, tensor in model.state_dict().items():
        for ours, theirs in swaps.items():
            key = key.replace(ours, theirs)
        public[key] = tensor
    torch.save(public, tmp_path / "dinov3.pth")
    with torch.no_grad():
        assert_same(features(tmp_path / "dinov3.pth", name), model(images()))


def test_official_swin(tmp_path):
    name = "swin_tiny_patch4_window7_224"
    options = {
        "img_size": SIZE,
        "patch_size": 4,
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [1, 2],
        "window_size": 4,
    }
    model = image_model(name, options, num_classes=7)
    public = {}
    for key, tensor in model.state_dict().items():
        # It merges patches at the end of a stage, and its head is one linear layer.
        public[key.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc.", "head.")] = tensor
    public["layers.0.blocks.1.attn_mask"] = model.layers[0].blocks[1].attn_mask
    public["layers.0.blocks.0.attn.relative_position_index"] = model.layers[0].blocks[0].attn.relative_position_index
    torch.save({"model": public}, tmp_path / "swin.pth")
    with torch.no_grad():
        theirs = model.forward_head(model.forward_features(images()), pre_logits=True)
    assert_same(features(tmp_path / "swin.pth", name, options=options), theirs)


def test_dinov3_without_biases_for_the_zeros_of_its_file(tmp_path, capfd):
    name = "vit_small_patch16_dinov3.lvd1689m"
    model = image_model(name, num_classes=0)
    public = {key.replace("reg_token", "storage_tokens"): tensor for key, tensor in model.state_dict().items()}
    public |= {f"blocks.{i}.attn.qkv.bias": torch.zeros(96) for i in range(OPTIONS["depth"])}
    torch.save(public, tmp_path / "zeros.pth")
    with torch.no_grad():
        assert_same(features(tmp_path / "zeros.pth", name), model(images()))
    assert capfd.readouterr().out == ""
    public["blocks.1.attn.qkv.bias"][0] = 1
    torch.save(public, tmp_path / "more.pth")
    with refused("blocks.1.attn.qkv.bias", "_qkvb"):
        features(tmp_path / "more.pth", name)


def test_the_decoder_of_mae_is_left_out(tmp_path):
    name = "vit_base_patch16_224.mae"
    model = image_model(name, num_classes=0)
    decoder = {"mask_token": torch.zeros(1, 1, 16), "decoder_embed.weight": torch.zeros(16, 32)}
    torch.save({"model": model.state_dict() | decoder}, tmp_path / "mae.pth")
    with torch.no_grad():
        assert_same(features(tmp_path / "mae.pth", name), model(images()))


@pytest.mark.parametrize("name", FAMILIES)
def test_other_patches_or_windows_are_not_resampled(name, tmp_path):
    cfg = toy(name)
    other = {"window_size": 8} if name == "swin_t" else {"patch_size": 16}
    trunk = timm.create_model(cfg.name, num_classes=0, **(cfg.options | other))
    save_file(trunk.state_dict(), tmp_path / "other.safetensors")
    expected = ["windows", "8", "4"] if name == "swin_t" else ["patches", "(16, 16)", "(8, 8)"]
    with refused(*expected):
        load_trunk(cfg.name, str(tmp_path / "other.safetensors"), SIZE, cfg.options)


@pytest.mark.filterwarnings(
    "ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning"
)
def test_an_archive_of_openai_is_not_for_another_activation(tmp_path):
    torch.jit.trace_module(openai_clip(), {"encode_image": images()}, check_trace=False).save(tmp_path / "ViT-toy.pt")
    with refused("QuickGELU"):
        features(tmp_path / "ViT-toy.pt", "vit_base_patch16_clip_224.laion2b")


def test_numbers_of_numpy_beside_the_tensors_are_read(tmp_path):
    torch.save({"meta": {"best_score": np.float64(0.8)}, "state_dict": {"a": torch.ones(2)}}, tmp_path / "mmcv.pth")
    assert torch.equal(read_tensors(tmp_path / "mmcv.pth")["a"], torch.ones(2))


@pytest.mark.parametrize("name", ["clip_vit_b16", "dinov2_reg_vit_s14", "dinov3_vit_s16", "siglip2_vit_b16", "swin_t"])
def test_another_input_size_is_resampled_as_timm_does(name, tmp_path):
    cfg, size = toy(name), 2 * SIZE
    model = image_model(cfg.name, cfg.options, num_classes=0)
    save_file(model.state_dict(), tmp_path / "trunk.safetensors")
    sha256 = fingerprint(model.state_dict())
    model.set_input_size(img_size=(size, size), **({"window_size": 4} if name == "swin_t" else {}))
    trunk = load_trunk(cfg.name, str(tmp_path / "trunk.safetensors"), size, cfg.options)
    with torch.no_grad():
        assert torch.equal(trunk.module.eval()(images(size)), model(images(size)))
    assert trunk.fingerprint == sha256  # of the weights as loaded


def test_a_size_that_patches_do_not_divide_is_an_error(tmp_path):
    with refused("clip.size=30"):
        load_trunk(CLIP, "random", 30, OPTIONS)


def test_the_fingerprint_is_of_names_shapes_and_values():
    state = {"b": torch.ones(2, 3), "a": torch.zeros(1)}
    same = fingerprint(dict(sorted(state.items())))
    assert fingerprint(state) == same == fingerprint({name: t.half() for name, t in state.items()})
    others = [
        {**state, "a": torch.full((1,), 1e-6)},
        {**state, "b": torch.ones(3, 2)},
        {"c": state["b"], "a": state["a"]},
    ]
    assert len({same, *map(fingerprint, others)}) == 4


def answering(monkeypatch, answer):
    monkeypatch.setattr(hub, "get_session", lambda: Mock())  # which is reached
    monkeypatch.setattr(_builder, "load_state_dict_from_hf", lambda *args, **kwargs: answer())


def test_the_hub_is_read_strictly(monkeypatch):
    name = "vit_small_patch16_224.augreg_in21k"
    model = image_model(name)
    answering(monkeypatch, model.state_dict)
    trunk = load_trunk(name, "pretrained", SIZE, OPTIONS)
    with torch.no_grad():
        theirs = model.forward_head(model.forward_features(images()), pre_logits=True)
        assert torch.equal(trunk.module.eval()(images()), theirs)
    answering(monkeypatch, lambda: {k: v for k, v in model.state_dict().items() if k != "blocks.0.norm1.bias"})
    with refused("blocks.0.norm1.bias"):
        load_trunk(name, "pretrained", SIZE, OPTIONS)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_hub_and_a_file_give_the_same_tensors(name, monkeypatch):
    """The fingerprint doesn't depend on the weights' source."""
    cfg = toy(name)
    untrained = timm.create_model(cfg.name, **cfg.options)  # with the head of its own classes
    monkeypatch.setattr(hub, "get_session", lambda: Mock())
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: untrained)
    from_hub = load_trunk(cfg.name, "pretrained", SIZE, cfg.options).module.state_dict()
    monkeypatch.undo()
    headless = timm.create_model(cfg.name, num_classes=0, **cfg.options).state_dict()
    assert {key: t.shape for key, t in from_hub.items()} == {key: t.shape for key, t in headless.items()}


def test_a_hub_that_does_not_answer_is_one_clear_error(monkeypatch):
    def offline():
        raise OSError("no route to host")

    answering(monkeypatch, offline)
    with refused("OSError", "backbone.weights=FILE", "https://"):
        load_trunk("vit_small_patch16_224.augreg_in21k", "pretrained", SIZE, OPTIONS)


@pytest.mark.parametrize("weights", ["pretrained", "hf://somebody/model"])
def test_a_hub_that_is_not_reached_is_refused_at_once(weights, monkeypatch, capsys):
    session = Mock()
    session.head.side_effect = OSError("no route to host")
    monkeypatch.setattr(hub, "get_session", lambda: session)
    for download in ("hub.hf_hub_download", "trunk.timm.create_model"):  # whose tries take minutes
        monkeypatch.setattr(f"aim.weights.{download}", lambda *args, **kwargs: pytest.fail("it was asked"))
    with refused("OSError", "backbone.weights=FILE", "https://"):
        if weights == "pretrained":
            files.from_hub("vit_small_patch16_224.augreg_in21k", {})
        else:
            files.weights_file(weights)
    assert "https://" in capsys.readouterr().err


def test_what_was_downloaded_before_needs_no_hub(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda name, file, revision: str(tmp_path))
    monkeypatch.setattr(hub, "get_session", lambda: pytest.fail("it was asked"))
    monkeypatch.setattr(hub, "hf_hub_download", lambda name, file: str(tmp_path))
    assert files.weights_file("hf://somebody/model") == tmp_path
    assert not capsys.readouterr().err


def test_missing_weights_say_how_to_get_them(tmp_path):
    for weights in ("", str(tmp_path / "nothing.pt")):
        with refused("trunk", "backbone.weights", "pretrained", "random"):
            load_trunk(CLIP, weights, SIZE, OPTIONS)


def test_an_unknown_trunk_names_the_nearest():
    with refused("vit_base_patch16_224", "backbone.name='vit_base_patch16_244'"):
        load_trunk("vit_base_patch16_244", "random", SIZE, {})


def test_options_that_a_trunk_does_not_have_are_an_error():
    with refused("backbone.options={'colour': 3}", "'colour'"):
        load_trunk("vit_base_patch16_224", "random", 224, {"colour": 3})


@pytest.mark.parametrize("weights", ["random", "pretrained"])
def test_a_trunk_of_an_unknown_family_is_an_error(weights):
    cfg = toy("clip_vit_b16")
    wrong = cfg.__class__(**{**vars(cfg), "name": "convnext_atto", "options": {}, "weights": weights})
    with refused("ConvNeXt", "backbone.name='convnext_atto'"):
        build(wrong, adapter(), num_classes=5, num_frames=FRAMES, size=SIZE, dropout=0.0)


def test_weights_that_do_not_fit_list_both_sides(tmp_path):
    model = image_model("vit_base_patch16_224", num_classes=0)
    state = model.state_dict()
    state["extra.weight"] = state.pop("norm.weight")
    state["norm.bias"] = torch.zeros(7)
    save_file(state, tmp_path / "wrong.safetensors")
    expected = ["norm.weight (1)", "extra.weight (1)", "norm.bias (7,)", "(32,)"]
    with refused(*expected):
        load_trunk("vit_base_patch16_224", str(tmp_path / "wrong.safetensors"), SIZE, OPTIONS)


def test_another_architecture_is_shortened(tmp_path):
    save_file({f"layer.{i}.weight": torch.zeros(1) for i in range(50)}, tmp_path / "other.safetensors")
    with refused("layer.0.weight", "(50)") as error:
        load_trunk(CLIP, str(tmp_path / "other.safetensors"), SIZE, OPTIONS)
    assert len(str(error.value)) < 500


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("code in a pickle was run",)


@pytest.mark.parametrize("broken", ["pickle", "checkpoint", "text", "empty"])
def test_foreign_code_and_broken_files_are_refused(tmp_path, broken):
    path = tmp_path / "bad.pt"
    if broken == "pickle":
        path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    elif broken == "checkpoint":
        torch.save({"model": Bomb()}, path)
    else:
        path.write_text("weights" if broken == "text" else "")
    with refused("bad.pt"):
        load_trunk(CLIP, str(path), SIZE, OPTIONS)


def test_a_broken_safetensors_file_is_refused(tmp_path):
    (tmp_path / "bad.safetensors").write_text("weights")
    with refused("bad.safetensors"):
        load_trunk(CLIP, str(tmp_path / "bad.safetensors"), SIZE, OPTIONS)


@pytest.mark.parametrize(
    ("name", "adapter_name"), [("clip_vit_b16", "aim"), ("swin_t", "aim"), ("clip_vit_b16", "attentive_probe")]
)
def test_another_number_of_frames_loads_only_when_asked(name, adapter_name):
    def model(frames):
        return build(toy(name), adapter(adapter_name), num_classes=5, num_frames=frames, size=SIZE, dropout=0.0)

    short, long = model(4), model(8)
    randomise(short)
    with refused("stretch_time=true"):
        put_tensors(long, short.state_dict(), "short.safetensors")
    tensors = stretch_time(short.state_dict(), long)
    long.load_state_dict(tensors)
    key = next(key for key in tensors if key.endswith(PER_FRAME))
    before, after = short.state_dict()[key], tensors[key]
    torch.testing.assert_close(after[[0, -1]], before[[0, -1]])  # the ends stay
    assert before.amin() <= after.amin() <= after.amax() <= before.amax()
    unchanged = stretch_time(short.state_dict(), model(4))
    assert all(torch.equal(unchanged[k], v) for k, v in short.state_dict().items())
