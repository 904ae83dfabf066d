"""Files on Hugging Face's hub: hf://OWNER/NAME, or hf://OWNER/NAME/FILE."""

import logging
from pathlib import Path

from huggingface_hub import hf_hub_download

from aim.ground.errors import UserError
from aim.ground.foreign import reason
from aim.ground.paths import path_of

HUGGING_FACE = "hf://"


def on_hub(text: str | Path) -> bool:
    """Whether a text is an address on the hub."""
    return str(text).startswith(HUGGING_FACE)


def parts_of(address: str, setting: str, usual: str) -> tuple[str, str, str]:
    """Owner, repository and file of an address; `usual` is the file that it means without one.

    Raises UserError for anything else.
    """
    owner, name, file = (*address.removeprefix(HUGGING_FACE).split("/", 2), "", "")[:3]
    if not owner or not name:
        raise UserError(f"{setting}={address}; use hf://OWNER/NAME, whose {usual} is meant, or hf://OWNER/NAME/FILE")
    return owner, name, file or usual


def file_here(text: str | Path, setting: str, usual: str, way_out: str) -> Path:
    """The file that a path or an address names, downloaded now or before. Raises UserError where it can't be had."""
    if not on_hub(text):
        return path_of(text)
    owner, name, file = parts_of(str(text), setting, usual)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a line for every try; the last error is told below
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file))
    except Exception as error:  # any error of the network, the hub or the disk; the cause stays attached
        raise UserError(f"can't load {text} ({type(error).__name__}: {reason(error)}); {way_out}") from error
