"""The server's requests, and its page."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from torch import Tensor

from aim.data.named import Input
from aim.data.windows import Windows
from aim.engine.trained.answer import Asking, as_row
from aim.engine.trained.timeline import check_smooth
from aim.ground.errors import UserError
from aim.ground.formats import own_version
from aim.pages.environment import environment
from aim.serve.desk import Desk, Seen
from aim.serve.received import Reception, Refused

SLOWEST = 60  # the longest Retry-After of a refused request, seconds
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)  # upper ends of a histogram's bins
VIDEOS = (1, 2, 4, 8, 16, 32, 64)
BODY = {  # OpenAPI's description of a request's body
    "requestBody": {
        "required": True,
        "content": {
            "video/*": {"schema": {"type": "string", "format": "binary", "title": "a video file"}},
            "application/json": {
                "schema": {
                    "type": "object",
                    "title": "a video below a root",
                    "properties": {"path": {"type": "string"}, "url": {"type": "string"}},
                    "minProperties": 1,
                    "maxProperties": 1,
                }
            },
        },
    }
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"description": HTTPStatus(code).phrase} for code in (400, 403, 404, 408, 413, 415, 422, 503)
}
Name = Annotated[str, Query(description="the uploaded video's name in the answer", max_length=255)]
Seconds = Annotated[float | None, Query(description="seconds; by default the server's")]


class Counts:
    """The numbers of /metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("aim_requests", "Requests by their answers", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "aim_request_seconds", "From a request to its answer", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.videos = Counter("aim_videos", "Videos that were looked at", ["outcome"], registry=self.registry)
        self.group = Histogram(
            "aim_group_videos", "Videos that were answered together", buckets=VIDEOS, registry=self.registry
        )
        self.accepted = Gauge("aim_accepted", "Requests that are accepted and not answered yet", registry=self.registry)


@dataclass
class Places:
    """Room for `most` requests at a time; others are told when to retry."""

    most: int
    taken: Gauge
    now: int = 0
    pace: float = field(default=0.5)  # recent seconds a video

    def told(self, videos: int, seconds: float) -> None:
        """Note the seconds of each of some videos."""
        self.pace += min(1.0, videos / 10) * (seconds - self.pace)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A place for the duration of the block. Raises Refused if there is none."""
        if self.now >= self.most:
            raise Refused(503, f"queue={self.most} requests are being answered already; come again later")
        self.now += 1
        self.taken.set(self.now)
        try:
            yield
        finally:
            self.now -= 1
            self.taken.set(self.now)

    @property
    def retry_after(self) -> str:
        """The expected seconds until a place is free."""
        return str(min(SLOWEST, max(1, math.ceil(self.now * self.pace / 2))))


@dataclass(frozen=True)
class Telling:
    """The form of answers, and the description of the model."""

    about: dict[str, Any]
    asking: Asking
    window: float
    stride: float | None
    smooth: float


def app(desk: Desk, reception: Reception, places: Places, counts: Counts, telling: Telling) -> FastAPI:
    """The server's application, over a started desk."""
    made = FastAPI(title="aim.serve", version=own_version(), docs_url=None, redoc_url=None)
    asking, page = telling.asking, environment("aim.serve").get_template("page.html")

    def windows(window: float | None, stride: float | None, smooth: float | None = None) -> Windows:
        length = telling.window if window is None else window
        usual = telling.stride if window is None else None
        try:
            check_smooth(smooth or 0.0)
            return Windows(length, (usual or length) if stride is None else stride)
        except UserError as error:
            raise Refused(422, str(error)) from error

    async def whole(item: Input) -> dict[str, Any]:
        found: Tensor | str = await asyncio.wrap_future(desk.video(item.path))
        (answer,) = asking.answers(item.name, found)
        counts.videos.labels("answered" if answer.error is None else "unreadable").inc()
        return as_row(answer)

    async def line(item: Input, cut: Windows, smooth: float, *, frames: bool) -> dict[str, Any]:
        found = await asyncio.wrap_future(desk.timeline(item.path, cut))
        counts.videos.labels("unreadable" if isinstance(found, str) else "answered").inc()
        if isinstance(found, str):
            return {"path": item.name, "error": found}
        assert isinstance(found, Seen)
        seen = found.line.smoothed(smooth)
        told = {
            "path": item.name,
            "duration": round(seen.duration, 3),
            "windows": [as_row(answer) for answer in asking.answers(item.name, seen)],
            "segments": [*asking.segments(item.name, seen)],
        }
        return told | ({"frames": [{"window": at, "jpeg": data} for at, data in found.frames]} if frames else {})

    @made.exception_handler(Refused)
    async def refuse(_: Request, error: Refused) -> Response:
        headers = {"Retry-After": places.retry_after} if error.status == HTTPStatus.SERVICE_UNAVAILABLE else None
        return JSONResponse({"error": str(error)}, error.status, headers)

    @made.middleware("http")
    async def count(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        began, status = time.monotonic(), 500
        try:
            response = await answer(request)
            status = response.status_code
            return response
        finally:
            path = getattr(request.scope.get("route"), "path", "other")
            counts.requests.labels(path, status).inc()
            counts.seconds.labels(path).observe(time.monotonic() - began)

    @made.post("/predict", openapi_extra=BODY, responses=PROBLEMS)
    async def predict(request: Request, name: Name = "video") -> Response:
        """The labels of a video, in aim.predict's form."""
        async with places.one(), reception.video(request, name) as item:
            return told(await whole(item))

    @made.post("/timeline", openapi_extra=BODY, responses=PROBLEMS)
    async def timeline(
        request: Request, name: Name = "video", window: Seconds = None, stride: Seconds = None, smooth: Seconds = None
    ) -> Response:
        """The labels of each window of a video, in the form of aim.predict with window=, and their segments."""
        cut = windows(window, stride, smooth)
        async with places.one(), reception.video(request, name) as item:
            return told(await line(item, cut, telling.smooth if smooth is None else smooth, frames=False))

    @made.post("/look", openapi_extra=BODY, responses=PROBLEMS)
    async def look(request: Request, name: Name = "video", window: Seconds = None, stride: Seconds = None) -> Response:
        """Both for the page: the labels of a video, its time line, and some of the model's frames."""
        cut = windows(window, stride)
        async with places.one(), reception.video(request, name) as item:
            answer, seen = await asyncio.gather(whole(item), line(item, cut, telling.smooth, frames=True))
            return told({"answer": answer, "timeline": seen} if "error" not in answer else answer)

    @made.get("/health")
    async def health() -> dict[str, Any]:
        """The model, and the number of accepted requests."""
        return telling.about | {"accepted": places.now}

    @made.get("/metrics")
    async def metrics() -> Response:
        """Counts and times, for Prometheus."""
        return PlainTextResponse(generate_latest(counts.registry), media_type=CONTENT_TYPE_LATEST)

    @made.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def home() -> HTMLResponse:
        return HTMLResponse(page.render(title="Drop a video", program="aim.serve", telling=telling))

    return made


def told(found: dict[str, Any]) -> Response:
    """An answer as JSON; for an unreadable video with its status."""
    status = HTTPStatus.UNPROCESSABLE_ENTITY if "error" in found else HTTPStatus.OK
    return Response(f"{json.dumps(found, ensure_ascii=False)}\n", status, media_type="application/json")
