"""Class names through CLIP's text tower, against open_clip's own logits: a toy CLIP with random weights."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.engine.trained.recogniser import Recogniser, of_trunk, told_by_names
from aim.ground import config
from aim.models.classifier import Backbone
from aim.models.zero_shot import ZeroShotHead
from aim.predict.verb import Settings
from aim.weights import text
from aim.weights.text import CONFIG, PROMPTS, class_texts, in_words
from tests.messages import refused

CLASSES = ("kick", "shakeHands", "give_a_hug")
MODEL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
OPTIONS = {"img_size": 32, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 1}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a user's own open_clip model."""
    made = tmp_path_factory.mktemp("clip")
    (made / CONFIG).write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": {}}), encoding="utf-8")
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{made}", load_weights=False)
    with torch.no_grad():
        model.visual.proj.mul_(3)
        model.logit_scale.fill_(3.0)
    save_file({name: x.contiguous() for name, x in model.state_dict().items()}, made / "open_clip_model.safetensors")
    return made


def toy(weights: Path | str, **more: str) -> Backbone:
    return Backbone(
        "vit_base_patch16_clip_224.laion2b",
        str(weights),
        MEAN,
        STD,
        [],
        ("position", "position"),
        options=OPTIONS,
        **more,
    )


def recogniser(folder: Path, frames: int = 1, prompts: Sequence[str] | None = None) -> Recogniser:
    backbone = toy(folder / "open_clip_model.safetensors")
    alone = of_trunk(backbone, Clip(frames, 1, 32, "uniform"), Views(1, 1, 32))
    return told_by_names(alone, backbone, CLASSES, prompts)


def of_open_clip(folder: Path, video: Tensor, prompts: Sequence[str]) -> Tensor:
    """Logits "b k" of the mean over frames, written out by open_clip's parts."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")
    names = ["kick", "shake hands", "give a hug"]
    texts = [F.normalize(model.encode_text(tokens([p.format(n) for p in prompts])), dim=1).mean(0) for n in names]
    pixels = (video.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    images = torch.stack([model.encode_image(frames) for frames in pixels]).mean(1)
    return model.logit_scale.exp() * F.normalize(images, dim=1) @ F.normalize(torch.stack(texts), dim=1).T


@pytest.mark.parametrize(("frames", "prompts"), [(1, ["a video of {}."]), (3, None)])
@torch.no_grad()
def test_logits_are_open_clips(folder: Path, frames: int, prompts: list[str] | None) -> None:
    own = recogniser(folder, frames, prompts)
    video = torch.randint(256, (5, frames, 3, 32, 32), dtype=torch.uint8)
    expected = of_open_clip(folder, video, prompts or PROMPTS)
    logits = own.model(own.model.preprocess(video))
    assert logits.allclose(expected, atol=1e-4)
    assert not logits.allclose(of_open_clip(folder, video, ["{}"]), atol=1e-4)
    assert own.predict(video).allclose(expected.softmax(1), atol=1e-5)
    assert own.classes == [*CLASSES]


@torch.no_grad()
def test_a_linear_head_that_starts_from_texts_gives_the_same_answers(folder: Path) -> None:
    own = recogniser(folder)
    video = own.model.preprocess(torch.randint(256, (16, 1, 3, 32, 32), dtype=torch.uint8))
    features, head = own.model.pooled(video), own.model.head
    assert isinstance(head, ZeroShotHead)
    lengths, logits, linear = head.projected(features).norm(dim=1), own.model(video), torch.nn.Linear(64, 3)
    head.start(linear, float(lengths.mean()))
    found = linear(features)
    assert found.argmax(1).equal(logits.argmax(1))
    assert (found - found.mean(1, keepdim=True)).allclose(
        (logits - logits.mean(1, keepdim=True)) * (lengths / lengths.mean())[:, None], atol=1e-4
    )
    assert found.mean(1).allclose(torch.zeros(16), atol=1e-4)


def test_a_file_of_transformers_gives_the_same_texts(folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(1)
    common = {"num_hidden_layers": 1, "intermediate_size": 128, "hidden_act": "gelu"}
    sizes = CLIPConfig(
        text_config={"hidden_size": 32, "num_attention_heads": 2, "eos_token_id": 49407, **common},
        vision_config={"hidden_size": 64, "num_attention_heads": 1, "image_size": 32, "patch_size": 16, **common},
        projection_dim=24,
    )
    theirs = CLIPModel(sizes).eval()
    layers = {**MODEL, "vision_cfg": {**MODEL["vision_cfg"], "layers": 1, "mlp_ratio": 2.0}}
    layers["text_cfg"] = {**MODEL["text_cfg"], "mlp_ratio": 4.0}
    (tmp_path / CONFIG).write_text(json.dumps({"model_cfg": layers}), encoding="utf-8")
    save_file(dict(theirs.state_dict()), tmp_path / "model.safetensors")
    found = class_texts("", str(tmp_path / "model.safetensors"), ["kick", "hug"], ["{}"])
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["kick", "hug"])
    with torch.no_grad():
        texts = theirs.text_projection(theirs.text_model(tokens).pooler_output)
    assert found.text.allclose(F.normalize(texts, dim=1), atol=1e-5)
    assert found.projection.allclose(theirs.visual_projection.weight)


def test_names_are_written_as_one_would() -> None:
    assert [*map(in_words, ("ApplyEyeMakeup", "brush_hair", "Tai Chi"))] == [
        "apply eye makeup",
        "brush hair",
        "tai chi",
    ]


def test_what_has_no_text_tower_is_one_line_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    weights = folder / "open_clip_model.safetensors"
    with refused("backbone.weights=random", "head=random"):
        text.check("", "random", None)
    with refused("backbone.text", "backbone=clip_vit_b16"):
        text.check("", str(tmp_path / "other.safetensors"), None)
    with refused("backbone.text=hf-hub:somebody/model", "NAME/TAG"):
        text.check("hf-hub:somebody/model", "pretrained", None)
    with refused("'a video'", "{}"):
        text.check("ViT-B-32/openai", str(weights), ["a video"])
    eye = {name: x for name, x in text.read_tensors(weights).items() if name.startswith("visual.")}
    save_file(eye, tmp_path / "eye.safetensors")
    (tmp_path / CONFIG).write_text((folder / CONFIG).read_text(encoding="utf-8"), encoding="utf-8")
    with refused(str(tmp_path / "eye.safetensors"), "head=random"):
        class_texts("", str(tmp_path / "eye.safetensors"), CLASSES)
    (tmp_path / CONFIG).write_text(json.dumps({"model_cfg": {**MODEL, "embed_dim": 8}}), encoding="utf-8")
    save_file(text.read_tensors(weights), tmp_path / "other.safetensors")
    with refused(str(tmp_path / "other.safetensors"), "backbone.text=NAME/TAG"):
        class_texts("", str(tmp_path / "other.safetensors"), CLASSES)


def test_without_open_clip_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with refused("open_clip", "'aim-video[text]'"):
        text.check("", str(folder / "open_clip_model.safetensors"), None)


def test_every_trunk_with_texts_is_one_of_open_clips() -> None:
    known = {f"{name}/{tag}" for name, tag in open_clip.list_pretrained()}
    named = {
        file.stem: node["text"]
        for file in sorted((config.CONFIGS / "backbone").glob("*.yaml"))
        if "text" in (node := config.load(file))
    }
    assert len(named) >= 12
    assert {*named.values()} <= known
    assert {name for name, value in named.items() if value.endswith("/openai")} == {
        "clip_vit_b16", "clip_vit_b32", "clip_vit_l14", "clip_vit_l14_336",
    }  # fmt: skip


def settings(*words: str) -> Settings:
    return config.build(config.compose(["input=a.mp4", *words], "predict"), Settings)


def test_prediction_by_names_is_asked_with_a_trunk_or_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("kick\nhug\n\n", encoding="utf-8")
    clip = "backbone=clip_vit_b16"
    assert settings(clip, "classes='kick, give a hug'").names_of_classes == ["kick", "give a hug"]
    assert settings(clip, "classes=[kick,hug]").names_of_classes == ["kick", "hug"]
    assert settings("checkpoint=a", f"classes='{tmp_path}/names.txt'").names_of_classes == ["kick", "hug"]
    with refused("checkpoint=FILE", "backbone=NAME"):
        settings()
    with refused("checkpoint=FILE", "backbone=NAME"):
        settings(clip, "checkpoint=a", "classes='a,b'")
    with refused("classes=A,B,C", "checkpoint=FILE"):
        settings(clip)
    with refused("classes=kick", "classes=A,B,C"):
        settings(clip, "classes=kick")
    with refused("prompts", "classes=A,B,C"):
        settings("checkpoint=a", "prompts=['{}']")


def test_a_probe_reads_other_features(folder: Path) -> None:
    run = config.compose(["+experiment=demo", "adapter=attentive_probe", "head=text"])
    from aim.engine.run.settings import Run

    own = replace(config.build(run, Run), backbone=toy(folder / "open_clip_model.safetensors"))
    own = replace(own, clip=Clip(4, 1, 32, "uniform"))
    with refused("head=random", "adapter=none"):
        own.check_text()
    with refused("head=text", "prompts"):
        replace(own, head="random", prompts=["{}"]).check_text()
