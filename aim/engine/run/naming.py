"""The name of a run: its experiment and the changed settings."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path


def run_name(name: str, overrides: Sequence[str], machine: Sequence[str], *, own_data: bool = False) -> str:
    """The experiment's name with the overrides that change results, such as `k400_vit_b16,adapter.ratio=0.125`.

    Settings of the `machine` are left out; of `data.root`, the folder's name is kept for `own_data` alone, whose
    content no other setting pins. Past 100 characters settings go by their last word, and a hash keeps names apart.
    """
    parts = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        value = value.strip("'\"")
        if key == "data.root" and own_data:
            value = Path(value).name
        elif key in ("experiment", "name") or is_one_of(key, machine):
            continue
        parts.append(f"{key}={value}" if value else key)
    text = ",".join(sorted(parts))
    if len(text) > 100:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = f"{','.join(re.sub(r'^[^=]*[.]', '', part) for part in sorted(parts))[:91]},{digest}"
    text = re.sub(r"[^\w.,=+@-]+", "_", text)
    return f"{name},{text}" if text else name


def is_one_of(key: str, settings: Sequence[str]) -> bool:
    """Whether a dotted setting is one of these, or inside of one."""
    return any(key == setting or key.startswith(f"{setting}.") for setting in settings)
