"""A local server with the part of Hugging Face's hub that its client needs to push and download.

Paths and answers follow huggingface_hub's requests: create, preupload, Git LFS's batch, commit, resolve.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants


class Hub:
    """The repositories: name -> path -> content; `refuses` makes it answer every push with this status."""

    def __init__(self) -> None:
        self.repos = dict[str, dict[str, bytes]]()
        self.private = dict[str, bool]()
        self.objects = dict[str, bytes]()
        self.commits = 0
        self.refuses: int | None = None


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def answer(self, status: int, content: bytes | dict[str, Any] = b"", **headers: str) -> None:
            data = json.dumps(content).encode() if isinstance(content, dict) else content
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_POST(self) -> None:
            here = f"http://{self.headers['Host']}"
            body = self.body()
            path = self.path.split("?")[0]
            if hub.refuses:
                self.answer(hub.refuses, {"error": "no"})
            elif path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization', 'user')}/{asked['name']}"
                status = 409 if name in hub.repos else 200
                hub.repos.setdefault(name, {})
                hub.private.setdefault(name, asked.get("visibility") == "private" or bool(asked.get("private")))
                self.answer(status, {"url": f"{here}/{name}"})
            elif path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif "/preupload/" in path:
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for file in json.loads(body)["files"]
                ]
                self.answer(200, {"files": modes})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = [
                    each | {"actions": {"upload": {"href": f"{here}/objects/{each['oid']}"}}}
                    for each in json.loads(body)["objects"]
                ]
                self.answer(200, {"transfer": "basic", "objects": objects})
            elif "/commit/" in path:
                name = path.removeprefix("/api/models/").partition("/commit/")[0]
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        hub.repos[name][value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        hub.repos[name][value["path"]] = hub.objects[value["oid"]]
                hub.commits += 1
                self.answer(200, {"commitUrl": f"{here}/{name}", "commitOid": "c" * 40, "pullRequestUrl": ""})
            else:
                self.answer(404, {"error": path})

        def do_PUT(self) -> None:
            content = self.body()
            assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
            hub.objects[self.path.rpartition("/")[2]] = content
            self.answer(200)

        def do_GET(self) -> None:
            name, _, file = self.path.lstrip("/").partition("/resolve/main/")
            if name.startswith("api/models/"):
                known = hub.repos.get(name.removeprefix("api/models/").partition("/revision")[0])
                self.answer(404 if known is None else 200, {"sha": "c" * 40, "id": "user/a", "siblings": []})
            elif not name:
                self.answer(200)
            elif file in hub.repos.get(name, {}):
                content = hub.repos[name][file]
                etag = hashlib.sha256(content).hexdigest()
                self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit="c" * 40)
            else:
                self.answer(404, X_Error_Code="EntryNotFound" if name in hub.repos else "RepoNotFound")

        do_HEAD = do_GET

    return Handler


@contextmanager
def served(patch: pytest.MonkeyPatch, cache: str) -> Iterator[Hub]:
    """A hub that huggingface_hub's client takes for the real one, with an empty cache."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", cache)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    assert huggingface_hub.__version__
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
