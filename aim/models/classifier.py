"""VideoClassifier: backbone -> mean over time -> dropout -> linear; `build` makes one from a config's parts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from aim.adapters.interface import AdapterConfig, Axis
from aim.ground.errors import UserError, check_least, say
from aim.ground.marks import Mark
from aim.models.attention import without_autocast
from aim.models.families import FAMILIES
from aim.models.family import VideoTrunk, check_frames
from aim.models.freeze import freeze_except
from aim.models.trunk import load_trunk
from aim.weights.trunk import check_weights

# Keyword arguments of timm.create_model that shape a trunk; some others name files and addresses.
SHAPES = (
    "img_size", "patch_size", "embed_dim", "depth", "depths", "num_heads", "window_size", "mlp_ratio", "qkv_bias",
    "qk_norm", "init_values", "class_token", "reg_tokens", "num_reg_tokens", "pre_norm", "final_norm", "fc_norm",
)  # fmt: skip


@dataclass(frozen=True)
class Backbone:
    """A trunk and its properties; the values of a configs/backbone/*.yaml."""

    name: str  # of the timm model, or of a family's own
    weights: Annotated[str, Mark.CONTENT, Mark.PATH, Mark.ELSEWHERE]  # "pretrained" (timm's hub), a file, or "random"
    mean: Sequence[float]  # of RGB, 0 to 1
    std: Sequence[float]
    trainable: Sequence[str]  # patterns of the trunk's parameters that `train_norm` trains
    drop_path_axes: Sequence[Axis]  # the published ones: of the temporal and of the joint branch
    tubelet: int = 1  # frames of a patch
    options: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of timm.create_model
    source: Annotated[str, Mark.MACHINE, Mark.SILENT] = ""  # of the published file that no hub of timm's has
    licence: Annotated[str, Mark.MACHINE, Mark.SILENT] = ""  # of the published weights, where users must know it
    text: Annotated[str, Mark.MACHINE, Mark.SILENT] = ""  # NAME/TAG of open_clip's model that the trunk is the eye of

    def __post_init__(self) -> None:
        if "_clip_" in self.name and self.name.endswith(".openai") and "_clip_quickgelu_" not in self.name:
            right = self.name.replace("_clip_", "_clip_quickgelu_")
            raise UserError(f"backbone.name={self.name!r} has another activation than OpenAI's CLIP; use {right}")

        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(
                f"backbone.mean={list(self.mean)}, std={list(self.std)}; use three numbers each, std above 0"
            )
        if len(self.drop_path_axes) != 2:
            raise UserError(f"backbone.drop_path_axes={list(self.drop_path_axes)}; use two: temporal and joint branch")
        check_least(self, 1, "tubelet", prefix="backbone.")

    @staticmethod
    def check_received(settings: Mapping[str, Any]) -> None:
        """Raise UserError for an option that a file of others must not set: timm has some that name files, say."""
        options = settings.get("options")  # of any type; it is checked when they are built
        for key, value in options.items() if isinstance(options, Mapping) else ():
            if key not in SHAPES or not is_plain(value):
                raise UserError(
                    f"backbone.options.{key}={value!r} doesn't shape a trunk, and isn't taken from a received file; "
                    f"options with numbers for {', '.join(SHAPES)} are"
                )

    def check_weights(self) -> None:
        """Raise UserError for weights that aren't there; nothing is loaded or downloaded."""
        if self.weights == "pretrained" and self.source:
            raise UserError(
                f"backbone.weights=pretrained: timm has no {self.name}; download {self.source}, and set "
                "backbone.weights=FILE"
            )
        check_weights(self.weights)


def terms_of(backbone: Backbone) -> str:
    """The licence of a trunk's published weights, as its settings or timm state it; empty where neither does."""
    if backbone.weights == "random":
        return ""
    if backbone.weights.startswith("aim:"):
        return "apache-2.0"  # of this package
    known = timm.get_pretrained_cfg(backbone.name, allow_unregistered=True)
    return backbone.licence or (known and known.license) or ""


def is_plain(value: Any) -> bool:
    """Whether an option is a number, a flag or nothing, or a list of these."""
    return all(is_plain(item) for item in value) if isinstance(value, list) else isinstance(value, int | float | None)


class VideoClassifier(nn.Module):
    """A backbone under a linear head: float "b c t h w" -> logits "b k", k classes."""

    fingerprint: str  # of the trunk's weights as loaded
    trunk_name: str
    trainable: list[str]  # names of the trained parameters
    given: set[str]  # names of the tensors that the trunk's weights give
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: VideoTrunk,
        *,
        num_classes: int,
        num_frames: int,
        size: int,
        dropout: float,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.backbone, self.num_frames, self.size = backbone, num_frames, size
        self.layout = list[torch.Size]()  # of the tensors in packed features, as `frozen` last gave them
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.dim, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1, 1), persistent=False)

    def preprocess(self, video: Tensor) -> Tensor:
        """uint8 "b t c h w" on any device -> normalised float "b c t h w"; packed features stay what they are."""
        if video.ndim == 2:
            return video.float()
        if video.ndim == 5:
            video = rearrange(video, "b t c h w -> b c t h w")
        self._check(video)
        if video.dtype != torch.uint8:
            raise UserError(f"a batch of clips of {video.dtype}; give uint8, 0 to 255, as readers do")
        return (video.float() / 255 - self.mean) / self.std

    def forward(self, video: Tensor) -> Tensor:
        return self.logits(self.pooled(video))

    def logits(self, pooled: Tensor) -> Tensor:
        """The head's output, "b d" -> "b k"."""
        with without_autocast(pooled.device):  # logits of bfloat16 have 8 bits, and tie
            logits: Tensor = self.head(self.dropout(pooled))
        return logits

    @property
    def reads_frozen(self) -> bool:
        """Whether nothing is trained inside the trunk, so that its features of a clip are always the same."""
        return all(name.startswith(("head.", "backbone.adapters.readout.")) for name in self.trainable)

    @torch.no_grad()
    def frozen(self, video: Tensor) -> Tensor:
        """The features of the trunk that are read, packed: "b c t h w" -> float32 "b m"; `forward` takes them, too."""
        self._check(video)
        features = self.backbone.frozen(video)
        self.layout = [y.shape[1:] for y in features]
        return torch.cat([y.flatten(1).float() for y in features], 1)

    def pooled(self, video: Tensor) -> Tensor:
        """The head's input, "b c t h w" or packed features "b m" -> "b d": the mean over time, in the head's dtype."""
        if video.ndim == 2:
            parts = torch.split(video, [shape.numel() for shape in self.layout], 1)
            features = self.backbone.read([y.reshape(-1, *shape) for y, shape in zip(parts, self.layout, strict=True)])
        else:
            self._check(video)
            features = self.backbone(video)
        with without_autocast(features.device):
            return features.to(self.head.weight.dtype).mean(1)

    def saved_names(self) -> list[str]:
        """The tensors of `state_dict` that aren't in the trunk's weights: the content of a checkpoint."""
        trained = set(self.trainable)
        return [name for name in self.state_dict() if name in trained or name not in self.given]

    def _check(self, video: Tensor) -> None:
        expected = (3, self.num_frames, self.size, self.size)
        if video.ndim != 5 or tuple(video.shape[1:]) != expected:
            raise UserError(
                f"a batch of clips of shape b c t h w = {tuple(video.shape)}; the model was built for "
                f"b {' '.join(map(str, expected))}: sample {self.num_frames} frames of {self.size}x{self.size} pixels "
                f"(clip.num_frames, clip.size)"
            )


def build(
    backbone: Backbone, adapter: AdapterConfig, *, num_classes: int, num_frames: int, size: int, dropout: float
) -> VideoClassifier:
    """Load the trunk, adapt its blocks, put a head on it and freeze the rest.

    Works under `torch.device("meta")` with random weights. Raises UserError for a trunk of an unknown family, missing
    or unfitting weights, and patterns that match nothing.
    """
    if not 0 <= dropout < 1:
        raise UserError(f"dropout={dropout:g}; use 0 or more, and less than 1")
    backbone.check_weights()
    trunk = load_trunk(backbone.name, backbone.weights, size, backbone.options, FAMILIES)
    if backbone.licence and backbone.weights != "random":
        say(f"licence of the weights of {backbone.name}: {backbone.licence}")
    trunk.family.set_tubelet(trunk.module, backbone.tubelet)
    check_frames(num_frames, backbone.tubelet)
    temporal, joint = backbone.drop_path_axes
    given = {id(tensor) for tensor in trunk.module.state_dict(keep_vars=True).values()}
    model = VideoClassifier(
        trunk.family.as_video(trunk.module, adapter, num_frames // backbone.tubelet, (temporal, joint)),
        num_classes=num_classes,
        num_frames=num_frames,
        size=size,
        dropout=dropout,
        mean=backbone.mean,
        std=backbone.std,
    )
    patterns = [*adapter.trainable, *(backbone.trainable if adapter.train_norm else ()), "head.*"]
    model.trainable = freeze_except(model, patterns)
    model.trunk_name, model.fingerprint = backbone.name, trunk.fingerprint
    state = model.state_dict(keep_vars=True)
    model.given = set() if backbone.weights == "random" else {name for name in state if id(state[name]) in given}
    return model


@contextmanager
def plainly(model: VideoClassifier) -> Iterator[None]:
    """Inside, all tokens go through all products, as timm does and papers count, and autograd keeps all it likes."""
    backbone = model.backbone
    memory = backbone.memory
    for part in backbone.parts:
        part.plain = True
    backbone.memory = "fast"
    try:
        yield
    finally:
        backbone.memory = memory
        for part in backbone.parts:
            part.plain = False
