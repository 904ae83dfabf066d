"""Share a checkpoint with its card: as a folder, or on Hugging Face's hub.

    python -m aim.share checkpoint=runs/demo repo=USER/NAME licence=apache-2.0   # after: hf auth login
    python -m aim.share checkpoint=runs/demo repo=./DIR                          # the same files in a folder

Others load it with checkpoint=hf://USER/NAME, by the rules for other people's files. Shared are README.md (aim.card),
best.safetensors without this machine's paths, results.json and, if given, a page of aim.report.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from huggingface_hub import HfApi
from omegaconf import DictConfig

from aim.engine.run import card
from aim.engine.trained import checkpoint
from aim.engine.trained.checkpoint import BEST, Checkpoint
from aim.engine.trained.recogniser import TrunkFile
from aim.ground import config, files
from aim.ground.errors import UserError, say
from aim.ground.foreign import reason
from aim.ground.marks import Mark, marked
from aim.ground.paths import path_of
from aim.weights.hub import HUGGING_FACE, on_hub
from aim.weights.trunk import check_weights

REPORT = "report.html"
NAMED = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)  # USER/NAME
PRIVATE = [name for name in marked(Mark.PATH) if name != "backbone.weights"]  # paths of this machine


@dataclass(frozen=True)
class Settings:
    """The keys of configs/share.yaml."""

    checkpoint: Annotated[str, Mark.PATH]
    repo: Annotated[str, Mark.PATH]
    results: Annotated[str | None, Mark.PATH]
    report: Annotated[str | None, Mark.PATH]
    title: str | None
    licence: str | None
    private: bool
    debug: bool
    backbone: TrunkFile


def main(cfg: DictConfig) -> None:
    """Write the folder, or push it."""
    settings = config.build(cfg, Settings)
    repo = repo_of(settings.repo)
    folder = None if repo else path_of(settings.repo)
    if folder is not None:
        check_free(folder)
    saved = checkpoint.read_weights(settings.checkpoint)
    shared = replace(saved, config=shareable(saved.config, settings.backbone.weights))
    found = card.result_of(saved, settings.results)
    report = None if settings.report is None else path_of(settings.report)
    if report is not None and not report.is_file():
        raise UserError(f"report={report} doesn't exist; python -m aim.report {saved.path.parent} writes one")
    address = f"{HUGGING_FACE}{repo}" if repo else f"FOLDER/{BEST}"
    name = settings.title or (repo.partition("/")[2] if repo else saved.run)
    text = card.card(shared, found, name=name, address=address, licence=settings.licence)

    parent = None if folder is None else folder.absolute().parent
    with (
        files.writing(folder or Path(tempfile.gettempdir()), files.AGAIN),
        tempfile.TemporaryDirectory(prefix=".aim-share-", dir=parent) as made,
    ):
        inside = Path(made, "share")
        inside.mkdir()
        fill(inside, shared, text, found, report)
        names = ", ".join(sorted(path.name for path in inside.iterdir()))
        if folder is not None:
            inside.rename(folder)
            say(f"written: {folder}, with {names}")
        else:
            assert repo is not None
            say(f"shared: {push(inside, repo, private=settings.private)}, with {names}")


def repo_of(text: str) -> str | None:
    """USER/NAME of the hub; None for a folder. Raises UserError if it may be both, or if the hub refuses the name."""
    name = text.removeprefix(HUGGING_FACE)
    if not on_hub(text):
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            return None
        if Path(name).parent.exists():
            raise UserError(f"repo={text} may be a folder here or a repository; write ./{text} or {HUGGING_FACE}{text}")
    if not NAMED.fullmatch(name):
        raise UserError(f"repo={text}; use {HUGGING_FACE}USER/NAME, of letters, digits and ._-")
    return name


def check_free(folder: Path) -> None:
    """Raise UserError if a folder exists already, or can't be made."""
    if folder.exists():
        raise UserError(f"repo={folder} exists already; name a new folder, or delete it")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"repo={folder}: its parent folder doesn't exist; make it, or name another")


def shareable(settings: Mapping[str, Any], weights: str | None) -> dict[str, Any]:
    """A run's settings without this machine's paths, and with the public source of the trunk.

    A trunk from a file becomes the published one: loading compares its hash.
    """
    found = {key: dict(value) if isinstance(value, Mapping) else value for key, value in settings.items()}
    for name in PRIVATE:
        group, _, key = name.rpartition(".")
        inside = found.get(group, {}) if group else found
        if isinstance(inside, dict) and key in inside:
            inside[key] = None
    own = found["backbone"]["weights"]
    is_file = not on_hub(own) and own not in ("pretrained", "random") and not own.startswith("aim:")
    found["backbone"]["weights"] = weights or ("pretrained" if is_file else own)
    if weights is not None:
        check_weights(weights)
        if not on_hub(weights) and weights not in ("pretrained", "random"):
            raise UserError(f"backbone.weights={weights} is a file of this machine; give pretrained or hf://OWNER/NAME")
    elif is_file:
        say(f"the trunk {own} is shared as the published one (backbone.weights=pretrained); or set hf://OWNER/NAME")
    return found


def fill(folder: Path, shared: Checkpoint, text: str, found: Mapping[str, Any], report: Path | None) -> None:
    """Write the shared files into an empty folder."""
    checkpoint.copy(shared.path, folder / BEST, {"config": json.dumps(shared.config)})
    files.write_text(folder / card.NAME, text)
    files.write_json(folder / "results.json", {key: value for key, value in found.items() if key != "checkpoint"})
    if report is not None:
        shutil.copyfile(report, folder / REPORT)


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Push a folder's files in one commit; returns the repository's address. Raises UserError if the hub refuses."""
    api = HfApi()
    try:
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Share a model of aim-video")
    except Exception as error:  # any error of the network, the hub or the disk; the cause stays attached
        raise UserError(
            f"can't push to {HUGGING_FACE}{repo} ({reason(error)}); log in (`hf auth login`), or set "
            "HF_TOKEN to a token with write access; repo=./DIR only writes the files"
        ) from error
    return str(made)
