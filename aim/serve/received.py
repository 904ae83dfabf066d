"""The video of a request: uploaded, or named as a path or an address below a root."""

import asyncio
import contextlib
import json
import posixpath
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from aim.data.named import Input, of_file
from aim.data.scanning import ENDINGS, ending
from aim.ground.errors import UserError
from aim.ground.foreign import reason
from aim.ground.paths import path_of, refusal

CHUNK = 2**16  # bytes
MAX_NAMES = 2**14  # bytes of a request that names a video
SCHEMES = ("http", "https")
INSTEAD = "send the video itself, or ask who runs the server for root="


class Refused(Exception):
    """A refused request: an HTTP status and a text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Roots:
    """The folders and addresses below which requests may name videos."""

    folders: Sequence[Path]  # without links
    addresses: Sequence[str]

    @classmethod
    def of(cls, named: str | Sequence[str] | None) -> "Roots":
        """Raises UserError for anything else."""
        names = [named] if isinstance(named, str) else named or []
        addresses = [name for name in names if urlsplit(name).scheme in SCHEMES and urlsplit(name).netloc]
        folders = [path_of(name) for name in names if name not in addresses]
        for folder in folders:
            if not folder.is_dir():
                raise UserError(f"root={folder} isn't a folder; give one, or an address such as https://HOST/videos/")
        return cls([folder.resolve() for folder in folders], addresses)

    def path(self, name: str) -> Path:
        """The file of a path below a folder. Raises Refused for any other, existing or not."""
        found = [self._below(folder, folder / name) for folder in self.folders]
        inside = [path for path in found if path is not None]
        if not inside:
            raise Refused(403, f"{name!r} is not below a root of this server; {INSTEAD}")
        file = next((path for path in inside if path.is_file()), None)
        if file is None:
            raise Refused(404, f"{name!r} is no file below a root of this server")
        return file

    def _below(self, folder: Path, path: Path) -> Path | None:
        """The path without links, if it leads below the folder."""
        try:
            real = path.resolve()
        except (OSError, ValueError, RuntimeError):  # a circle of links, a NUL
            return None
        return real if real.is_relative_to(folder) and refusal(real) is None else None

    def allow(self, address: str) -> None:
        """Raise Refused for an address that isn't below one of these."""
        wanted = _parts(address)
        for root in map(_parts, self.addresses):
            if wanted and root and wanted[:2] == root[:2] and f"{wanted[2]}/".startswith(f"{root[2].rstrip('/')}/"):
                return
        raise Refused(403, f"{address!r} is not below a root of this server; {INSTEAD}")


def _parts(address: str) -> tuple[str, str, str] | None:
    """Scheme, host and path; None if one is missing, or if the path goes up or hides a slash."""
    try:
        found = urlsplit(address)
        path = f"/{unquote(found.path).strip('/')}"
    except ValueError:
        return None
    odd = "\\" in path or "%" in path or posixpath.normpath(path) != path
    return None if odd or found.scheme not in SCHEMES else (found.scheme, found.netloc.lower(), path)


@dataclass(frozen=True)
class Reception:
    """Takes the videos of requests, and keeps uploaded ones in `folder` as long as needed."""

    roots: Roots
    folder: Path
    max_bytes: int
    timeout: float

    @asynccontextmanager
    async def video(self, request: Request, name: str) -> AsyncIterator[Input]:
        """The video of a request, called `name` if uploaded. Raises Refused for a request without one."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith("multipart/"):
            raise Refused(415, f"{kind} is a form; send the file as the body, as curl --data-binary @VIDEO does")
        if kind != "application/json":
            with self._kept(name) as file:
                await self._timed(self._save(request, file))
                yield self._checked(Path(file.name), name)
            return
        key, given = await self._timed(self._named(request))
        if key == "path":
            yield self._checked(self.roots.path(given), given)
            return
        self.roots.allow(given)
        with self._kept(urlsplit(given).path) as file:
            await run_in_threadpool(self._fetch, given, file)
            yield self._checked(Path(file.name), given)

    @contextmanager
    def _kept(self, name: str) -> Iterator[IO[bytes]]:
        """A new file with the name's ending, which some pictures need."""
        suffix = ending(name) if ending(name) in ENDINGS else ""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(NamedTemporaryFile(dir=self.folder, suffix=suffix))
            except OSError as error:
                raise unkept(error) from error
            yield file

    def _checked(self, path: Path, name: str) -> Input:
        if problem := of_file(path, folders=False):
            raise Refused(422, f"{name} {problem}")
        return Input(path, given=name)

    async def _timed(self, work: Any) -> Any:
        try:
            async with asyncio.timeout(self.timeout):
                return await work
        except TimeoutError:
            raise Refused(408, f"the video has not come within timeout={self.timeout:g} seconds") from None
        except ClientDisconnect:
            raise Refused(400, "the connection ended before the video's end") from None

    async def _save(self, request: Request, file: IO[bytes]) -> None:
        save = self._saver(file, request.headers.get("content-length", ""))
        async for chunk in request.stream():
            save(chunk)
        if not save(b""):
            raise Refused(400, "the request has no video: send a file as its body, as curl --data-binary @VIDEO does")

    def _saver(self, file: IO[bytes], length: str) -> Callable[[bytes], int]:
        """Writes to the file and returns its size. Raises Refused if it, or the `length` of a header, is too large."""
        size, told = 0, int(length) if length.isdecimal() else 0

        def save(chunk: bytes) -> int:
            nonlocal size
            size += len(chunk)
            if max(size, told) > self.max_bytes:
                raise Refused(413, f"the video has more than max_mb={self.max_bytes / 10**6:g} MB; send a part of it")
            try:
                file.write(chunk)
                file.flush()
            except OSError as error:
                raise unkept(error) from error
            return size

        save(b"")
        return save

    async def _named(self, request: Request) -> tuple[str, str]:
        """`path` or `url`, and its value in a request."""
        text = b""
        async for chunk in request.stream():
            text += chunk
            if len(text) > MAX_NAMES:
                raise Refused(413, f"a request that names a video has at most {MAX_NAMES} bytes")
        try:
            found = json.loads(text)
            ((key, given),) = found.items()
        except (ValueError, AttributeError, RecursionError):
            key, given = "", None
        if key not in ("path", "url") or not isinstance(given, str) or not given:
            raise Refused(400, 'a request as JSON names one video: {"path": "..."} or {"url": "https://..."}')
        return key, given

    def _fetch(self, address: str, file: IO[bytes]) -> None:
        """Download an address into a file, within the limits of time and size."""
        end = time.monotonic() + self.timeout
        opener = urllib.request.build_opener(Redirects(self.roots))
        try:
            with contextlib.closing(opener.open(address, timeout=self.timeout)) as response:
                save = self._saver(file, response.headers.get("Content-Length", ""))
                while chunk := response.read1(CHUNK):
                    save(chunk)
                    if time.monotonic() > end:
                        raise TimeoutError
        except TimeoutError:
            raise Refused(504, f"{address} has not come within timeout={self.timeout:g} seconds") from None
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
            raise Refused(502, f"{address} can't be had: {reason(error)}") from error


def unkept(error: OSError) -> Refused:
    return Refused(507, f"the video can't be kept: {reason(error)}")


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to addresses below a root."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        self.roots.allow(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
