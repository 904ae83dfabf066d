"""Serve a trained model over HTTP: videos in, aim.predict's answers out; and a page to drop a video on.

    python -m aim.serve checkpoint=runs/demo                        # or an .onnx or .pt2 of aim.export
    curl --data-binary @VIDEO http://127.0.0.1:8000/predict         # JSON; /timeline: second by second
    curl --json '{"path": "a/b.mp4"}' http://127.0.0.1:8000/predict # below root=DIR

Needs the extra `serve`. After SIGTERM or Ctrl-C accepted requests are answered, then it ends with exit code 0.
docs/serve.md has the rest.
"""

import errno
import math
import socket
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omegaconf import DictConfig
from torch import Tensor

from aim.data.readers.frames import Frames
from aim.data.windows import Windows
from aim.engine.machine.hardware import Precision
from aim.engine.scores.tasks import Limit
from aim.engine.trained.answer import Asking
from aim.engine.trained.question import Question, prepared
from aim.engine.trained.recogniser import Recogniser
from aim.engine.trained.timeline import check_smooth
from aim.ground import config
from aim.ground.errors import UserError, check_least, say
from aim.ground.foreign import library, reason
from aim.ground.marks import Mark
from aim.ground.signals import stop_signals

if TYPE_CHECKING:
    from fastapi import FastAPI

    from aim.serve.desk import Desk
    from aim.serve.received import Reception

GPU_BATCH = 16  # clips
LOOK = 0.2  # seconds between two checks for a signal
POSITIVE = ("queue", "max_mb", "max_seconds", "timeout")


@dataclass(frozen=True)
class Settings(Question):
    """The keys of configs/serve.yaml."""

    host: str
    port: int
    root: Annotated[str | Sequence[str] | None, Mark.PATH]
    queue: int
    max_mb: float
    max_seconds: float
    timeout: float
    batch_size: int | None
    window: float
    stride: float | None
    smooth: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in POSITIVE:
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name}={getattr(self, name):g} must be above 0, and finite")
        if not 0 <= self.port < 2**16:
            raise UserError(f"port={self.port} isn't a port; use 0 to 65535")
        check_least(self, 1, "batch_size")
        if self.workers == 0:
            raise UserError("workers=0: a server needs 1 or more, as a file may crash its process")
        check_smooth(self.smooth)
        if isinstance(self.reader, Frames):
            raise UserError("reader=frames reads folders, and a server gets files; leave it out")
        Windows(self.window, self.window if self.stride is None else self.stride)


def main(cfg: DictConfig) -> None:
    """Answer requests until a signal comes."""
    settings = config.build(cfg, Settings)
    for name in ("fastapi", "prometheus_client", "uvicorn"):
        library(name, "aim.serve", "serve")
    with listening(settings.host, settings.port) as listener, tempfile.TemporaryDirectory(prefix="aim-serve-") as kept:
        reception = reception_of(settings, Path(kept))
        desk, application = opened(settings, reception, *prepared(settings))
        with desk:
            serve(application, listener)


def reception_of(settings: Settings, folder: Path) -> "Reception":
    """The reception of videos, which keeps them in a folder. Raises UserError for a missing root."""
    from aim.serve.received import Reception, Roots

    return Reception(Roots.of(settings.root), folder, int(settings.max_mb * 10**6), settings.timeout)


def opened(
    settings: Settings, reception: "Reception", recogniser: Recogniser, precision: Precision, asking: Asking
) -> tuple["Desk", "FastAPI"]:
    """The desk at which the model answers, and the application that asks it."""
    from aim.serve.app import Counts, Places, Telling, app
    from aim.serve.desk import Desk

    counts = Counts()
    places = Places(settings.queue, counts.accepted)

    def tell(videos: int, seconds: float) -> None:
        counts.group.observe(videos)
        places.told(videos, seconds)

    desk = Desk(
        recogniser,
        settings.reader,
        precision,
        batch_size=settings.batch_size or (1 if recogniser.device.type == "cpu" else GPU_BATCH),
        workers=settings.processes,
        timeout=settings.timeout,
        max_seconds=settings.max_seconds,
        told=tell,
    )
    about = described(settings, recogniser, asking.at_least)
    telling = Telling(about, asking, settings.window, settings.stride, settings.smooth)
    return desk, app(desk, reception, places, counts, telling)


def listening(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError if that fails, before a model is loaded."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            text = f"port={port} of host={host} is in use; use port={port + 1}, or port=0 for one that is free"
        elif getattr(error, "errno", None) == errno.EACCES:
            text = f"port={port} is not for this user; use one from 1024 on"
        else:
            text = f"host={host} port={port} can't be listened at ({reason(error)}); use host=127.0.0.1 or host=0.0.0.0"
        raise UserError(text) from error


def described(settings: Settings, recogniser: Recogniser, at_least: Limit) -> dict[str, Any]:
    """The model, for /health: its classes, and the least probability of a label, of all classes or of each."""
    if isinstance(at_least, Tensor):  # JSON has no infinity, the threshold of a background
        limits: Any = [round(x, 6) if math.isfinite(x) else None for x in at_least.tolist()]
    else:
        limits = at_least
    return {
        "status": "ok",
        "checkpoint": str(settings.checkpoint),
        "classes": recogniser.classes,
        "several": recogniser.task.several,
        "at_least": limits,
        "views": recogniser.views.protocol(recogniser.clip.num_frames),
        "device": recogniser.device.type,
    }


def serve(application: "FastAPI", listener: socket.socket) -> None:
    """Answer requests until a signal, and then the accepted ones."""
    import uvicorn

    from aim.serve.connection import Connection

    options = uvicorn.Config(
        application, http=Connection, log_config=None, access_log=False, server_header=False, lifespan="off", ws="none"
    )  # h11 refuses endless headers, httptools keeps them
    server = uvicorn.Server(options)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    host, port = listener.getsockname()[:2]
    with stop_signals() as stop:
        thread.start()
        say(f"answers at http://{f'[{host}]' if ':' in host else host}:{port}/; Ctrl-C ends it")
        while thread.is_alive() and not stop:
            thread.join(LOOK)
        server.should_exit = True
        if stop:
            say("stopping by a signal: accepted requests are answered, new ones refused")
        thread.join()
