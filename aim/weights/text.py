"""Class names through CLIP's text tower, and the projection of image features into the same space.

open_clip builds the tower (the extra `text`). A trunk's file that has one is OpenAI's, open_clip's or transformers'
CLIP; timm's files have only the image tower. Shapes: k classes, d features of the trunk, e dimensions of both towers.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aim.ground.console import without_logs
from aim.ground.errors import UserError
from aim.ground.foreign import library, reason
from aim.weights.hub import HUGGING_FACE
from aim.weights.renaming import hugging_face_texts
from aim.weights.trunk import check_fit, read_tensors, weights_file

PROMPTS = (
    "a video of {}.",
    "a video of a person {}.",
    "a photo of {}.",
    "a frame of a video that shows {}.",
    "someone is {}.",
)
CONFIG = "open_clip_config.json"  # beside the weights, where open_clip saves it
OPENAIS = ("input_resolution", "context_length", "vocab_size")  # numbers in OpenAI's archives
PASSING = (nn.Sequential, nn.Identity, nn.Dropout)
WITHOUT = "use head=random, or a CLIP trunk with the file that its publisher has of both towers"


@dataclass(frozen=True)
class ClassTexts:
    """The classes in CLIP's common space."""

    text: Tensor  # "k e", of length 1 each
    projection: Tensor  # "e d", of the trunk's features
    offset: Tensor  # "e", added to that
    scale: float  # of cosine similarities, the inverse of the softmax's temperature


def check(text: str, weights: str, prompts: Sequence[str] | None) -> None:
    """Raise UserError if a trunk has no text tower, or open_clip is missing; nothing is loaded or downloaded."""
    if wrong := next((prompt for prompt in prompts or () if prompt.count("{}") != 1), None):
        raise UserError(f"prompts={wrong!r} must have one {{}}, for the name of a class")
    if text and not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise UserError(f"backbone.text={text} must be NAME/TAG, a model of open_clip's and its weights")
    if weights == "random":
        raise UserError("backbone.weights=random has no text tower; " + WITHOUT)
    if not text and (weights == "pretrained" or not config_of(weights)):
        raise UserError(
            "this trunk has no text tower that is known (backbone.text is empty); use backbone=clip_vit_b16 or another "
            f"CLIP, backbone.text=NAME/TAG of open_clip's, or {CONFIG} beside backbone.weights"
        )
    open_clip()


def open_clip() -> Any:
    """The library. Raises UserError if it isn't installed."""
    return library("open_clip", "a head of class names", "text")


def config_of(weights: str) -> Path | None:
    """The file beside a trunk's weights that identifies its open_clip model, if there is one."""
    found = None if weights.startswith(HUGGING_FACE) else weights_file(weights).with_name(CONFIG)
    return found if found and found.is_file() else None


@torch.inference_mode()
def class_texts(text: str, weights: str, classes: Sequence[str], prompts: Sequence[str] | None = None) -> ClassTexts:
    """The texts of some classes, each the mean over `prompts` (Radford et al. 2021, section 3.1.4).

    `text` is open_clip's NAME/TAG of the model, `weights` the trunk's. Raises UserError if they have no text tower,
    don't fit, or aren't available.
    """
    check(text, weights, prompts)
    clip, tokenizer = towers(text, weights)
    names = [in_words(name) for name in classes]
    embedded = open_clip().build_zero_shot_classifier(clip, tokenizer, names, list(prompts or PROMPTS)).T
    texts, projection, offset = (x.float().contiguous().clone() for x in (embedded, *projection_of(clip.visual)))
    return ClassTexts(texts, projection, offset, float(clip.logit_scale.exp()))


def towers(text: str, weights: str) -> tuple[Any, Any]:
    """CLIP with the trunk's weights, and its tokenizer."""
    clips, (name, _, tag) = open_clip(), text.partition("/")
    config = None if weights == "pretrained" else config_of(weights)
    model = f"local-dir:{config.parent}" if config else name
    with open_clips(f"backbone.text={text}" if config is None else str(config)):
        if weights == "pretrained":
            return clips.create_model(name, pretrained=tag).eval(), clips.get_tokenizer(name)
        clip = clips.create_model(model, load_weights=False, pretrained_text=False).eval()
        tokenizer = clips.get_tokenizer(model)
    path = weights_file(weights)
    tensors = {key: x for key, x in hugging_face_texts(read_tensors(path), path).items() if key not in OPENAIS}
    own = clip.state_dict()
    if not any("token_embedding" in key for key in tensors):
        raise UserError(f"{path} has no text tower; {WITHOUT}")
    check_fit(own, tensors, str(path), f"its model is open_clip's {model}; another is backbone.text=NAME/TAG")
    clip.load_state_dict(tensors)
    return clip, tokenizer


@contextmanager
def open_clips(what: str) -> Iterator[None]:
    """Turn open_clip's errors over a model, a download or a tokenizer into one line."""
    try:
        with without_logs():  # it says that weights are random, before they are loaded
            yield
    except Exception as error:  # of the network, the hub, the disk, or an unknown model
        raise UserError(f"the text tower of {what} can't be had ({reason(error)}); {WITHOUT}") from error


def projection_of(visual: Any) -> tuple[Tensor, Tensor]:
    """The projection of a frame's features: matrix "e d" and bias "e".

    Raises UserError if the tower ends in more than a linear layer.
    """
    if isinstance(proj := getattr(visual, "proj", None), Tensor):  # open_clip's own towers
        return proj.T, proj.new_zeros(proj.shape[1])
    layers = [x for part in (visual.trunk.head, visual.head) for x in part.modules() if not isinstance(x, PASSING)]
    if not layers:
        return torch.eye(visual.trunk.num_features), torch.zeros(visual.trunk.num_features)
    (layer, *more) = layers
    if more or not isinstance(layer, nn.Linear):
        raise UserError(f"the images' tower ends in more than a linear layer ({type(layer).__name__}); {WITHOUT}")
    return layer.weight, layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias


def in_words(name: str) -> str:
    """A class's name in words: brushHair and brush_hair become brush hair."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").strip().lower()
