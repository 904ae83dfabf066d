"""Public files of video ViTs -> the names of `aim.models.video_vit`.

Meta's of V-JEPA 2 and 2.1, the authors' and mmaction2's of VideoMAE and VideoMAE V2, and transformers' of V-JEPA 2
and VideoMAE.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from aim.ground.errors import UserError
from aim.weights.trunk import shortened

# Prefixes of the encoder in a checkpoint; the published mean over training steps comes first.
KEYS = ("state_dict", "model", "module", "ema_encoder", "target_encoder", "encoder")
PREFIXES = r"((module|backbone|model|videomae|vjepa2)\.)*(encoder\.)?"
SWAPS = {  # patterns of their names, in this order; # is a number
    r"((embeddings\.)?patch_embeddings|patch_embed)\.(projection|proj)\.": "patch_embed.proj.",
    r"video_mod_embed": "modality",
    r"img_mod_embed": "modality_img",
    r"(fc_norm|layernorm)\.": "norm.",
    r"(layer|blocks)\.(\d+)\.": r"blocks.\2.",
    r"(blocks\.\d+\.)layernorm_before\.": r"\1norm1.",
    r"(blocks\.\d+\.)layernorm_after\.": r"\1norm2.",
    r"(blocks\.\d+\.)attention\.(attention\.)?": r"\1attn.",
    r"(blocks\.\d+\.)attn\.output\.dense\.": r"\1attn.proj.",
    r"(blocks\.\d+\.)attn\.([qkv])_bias": r"\1attn.\2.bias",
    r"(blocks\.\d+\.)attn\.([qkv])(uery|ey|alue)\.": r"\1attn.\2.",
    r"(blocks\.\d+\.)(intermediate\.dense|mlp\.layers\.0\.0)\.": r"\1mlp.fc1.",
    r"(blocks\.\d+\.)(output\.dense|mlp\.layers\.1)\.": r"\1mlp.fc2.",
}
# Left out: heads, decoders and predictors, tables of positions that no block reads, and poolers of probes.
LEFT_OUT = r"(head|cls_head|classifier|pooler|predictor|decoder|encoder_to_decoder)\.|mask_token|(decoder_)?pos_embed"


def public_names(tensors: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's tensors under our names, and the names in the file of those left out on purpose.

    Raises UserError if a layer has queries without keys and values.
    """
    norms = [int(found[1]) for name in tensors if (found := re.search(r"norms_block\.(\d+)\.", name))]
    last = max(norms, default=0)
    kept, left_out = {}, []
    for name, tensor in tensors.items():
        short = re.sub(f"^{PREFIXES}", "", name)
        between = re.match(r"norms_block\.(\d+)\.", short)
        if re.match(LEFT_OUT, short) or (between and int(between[1]) < last):
            left_out.append(name)
            continue
        short = re.sub(rf"^norms_block\.{last}\.", "norm.", short)
        for theirs, ours in SWAPS.items():
            short = re.sub(f"^{theirs}", ours, short)
        kept[short] = tensor
    return joined(kept, path), left_out


def joined(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Queries, keys and values as one layer. VideoMAE's keys have no bias, equivalent to zeros."""
    found = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.*\.attn\.)([qkv])\.(weight|bias)", name)
        if match is None:
            found[name] = tensor
            continue
        start, part, kind = match.groups()
        if part != "q":
            continue
        parts = [f"{start}{each}.{kind}" for each in "qkv"]
        theirs = dict(tensors)
        if kind == "bias":
            theirs.setdefault(parts[1], torch.zeros_like(tensor))
        if lacking := [each for each in parts if each not in theirs]:
            raise UserError(f"{path} doesn't fit: it lacks {shortened(lacking)}")
        found[f"{start}qkv.{kind}"] = torch.cat([theirs[each] for each in parts])
    return found


def published_as(tensors: Mapping[str, Tensor]) -> str:
    """The kind of model of a file with such names."""
    if any("norms_block." in name or name.endswith("video_mod_embed") for name in tensors):
        return "V-JEPA 2.1"
    if any(re.search(r"\.q_bias$|attention\.attention\.", name) for name in tensors):
        return "VideoMAE"
    tubelets = any("patch_embed" in name and tensor.ndim == 5 for name, tensor in tensors.items())
    return "V-JEPA 2" if tubelets else "another family"
