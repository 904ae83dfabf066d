"""Write the model card of a checkpoint from its results.json.

    python -m aim.card checkpoint=runs/demo
    python -m aim.card checkpoint=runs/demo results=runs/eval/NAME licence=apache-2.0 out=FILE.md

Markdown with the front matter of Hugging Face's hub: scores with their chance levels, their videos and whether these
influenced a choice, the licence of the trunk's weights, the model's input.
"""

from dataclasses import dataclass
from typing import Annotated

from omegaconf import DictConfig

from aim.engine.run import card
from aim.engine.trained import checkpoint
from aim.ground import config, files
from aim.ground.errors import say
from aim.ground.marks import Mark
from aim.ground.paths import path_of


@dataclass(frozen=True)
class Settings:
    """The keys of configs/card.yaml."""

    checkpoint: Annotated[str, Mark.PATH]
    results: Annotated[str | None, Mark.PATH]
    out: Annotated[str | None, Mark.PATH]
    title: str | None
    licence: str | None
    debug: bool


def main(cfg: DictConfig) -> None:
    """Write the card beside the checkpoint, or to `out`."""
    settings = config.build(cfg, Settings)
    saved = checkpoint.read_weights(settings.checkpoint)
    out = saved.path.with_name(card.NAME) if settings.out is None else path_of(settings.out)
    files.check_writable(out)
    found = card.result_of(saved, settings.results)
    name = settings.title or saved.run
    text = card.card(saved, found, name=name, address=saved.path.name, licence=settings.licence)
    files.write_text(out, text)
    say(f"written: {out}")
