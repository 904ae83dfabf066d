"""Files on Hugging Face's hub: hf://OWNER/NAME, or hf://OWNER/NAME/FILE."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache

from aim.ground.errors import UserError, say
from aim.ground.foreign import reason
from aim.ground.paths import path_of

HUGGING_FACE = "hf://"


def on_hub(text: str | Path) -> bool:
    """Whether a text is an address on the hub."""
    return str(text).startswith(HUGGING_FACE)


def parts_of(address: str, setting: str, usual: str) -> tuple[str, str, str]:
    """Owner, repository and file of an address; `usual` is the default file.

    Raises UserError for anything else.
    """
    owner, name, file = (*address.removeprefix(HUGGING_FACE).split("/", 2), "", "")[:3]
    if not owner or not name:
        raise UserError(f"{setting}={address}; use hf://OWNER/NAME, whose {usual} is meant, or hf://OWNER/NAME/FILE")
    return owner, name, file or usual


def file_here(text: str | Path, setting: str, usual: str, way_out: str) -> Path:
    """The file of a path or an address, downloaded once. Raises UserError if it isn't available."""
    if not on_hub(text):
        return path_of(text)
    owner, name, file = parts_of(str(text), setting, usual)
    with downloaded(str(text), f"{owner}/{name}", file, way_out=way_out):
        return Path(hf_hub_download(f"{owner}/{name}", file))


@contextmanager
def downloaded(wanted: str, repository: str, *files: str, way_out: str) -> Iterator[None]:
    """Around a download from the hub; names the source unless its cache has one of the `files`.

    Raises UserError for any error, immediately if the hub can't be reached: its client would retry silently for
    minutes.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a line for every try; the last error is told below
    name, _, revision = repository.partition("@")
    try:
        cached = (try_to_load_from_cache(name, file, revision=revision or None) for file in files if name)
        if name and not any(isinstance(path, str) for path in cached):
            say(f"downloading {wanted} from {constants.ENDPOINT}/{name}")
            get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        yield
    except Exception as error:  # any error of the network, the hub or the disk; the cause stays attached
        where = f"{constants.ENDPOINT}/{name}" if name else "timm's hub"
        raise UserError(
            f"can't load {wanted} from {where} ({type(error).__name__}: {reason(error)}); {way_out}"
        ) from error
