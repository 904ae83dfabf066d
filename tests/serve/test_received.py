import asyncio
import io
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aim.serve.received import Reception, Refused, Roots
from tests.messages import refused

HOST = "https://media.test"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with a video, and a private file beside it."""
    for name in ("root/sub/a.mp4", "secret.mp4", "root2/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "root/out.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "root/up").symlink_to(tmp_path)
    (tmp_path / "root/in.mp4").symlink_to("sub/a.mp4")
    (tmp_path / "root/circle").symlink_to("circle")
    return tmp_path


def test_a_path_leads_below_a_root_or_nowhere(tree: Path) -> None:
    roots = Roots.of([str(tree / "root"), str(tree / "root2")])
    for name in ("sub/a.mp4", "in.mp4", "sub/../in.mp4", f"{tree}/root/sub/a.mp4"):
        assert roots.path(name) == tree / "root/sub/a.mp4"
    assert roots.path("b.mp4") == tree / "root2/b.mp4"
    outside = ["../secret.mp4", "out.mp4", "up/secret.mp4", f"{tree}/secret.mp4", "/etc/passwd", "../root3/a", "a\0b"]
    one = Roots.of(str(tree / "root"))
    for name in outside:
        with refused("root=", error=Refused) as caught:
            one.path(name)
        assert caught.value.status == 403
    for name in ("sub", "nothing.mp4", "circle"):
        with pytest.raises(Refused) as caught:
            roots.path(name)
        assert caught.value.status in (403, 404), name
    # Outside of the root, existence isn't revealed.
    assert str_of(roots, "../secret.mp4").replace("secret", "absent") == str_of(roots, "../absent.mp4")
    with refused("'a.mp4'", "root=", error=Refused):
        Roots.of(None).path("a.mp4")
    with refused(f"root={tree / 'nowhere'}"):
        Roots.of(str(tree / "nowhere"))


def str_of(roots: Roots, name: str) -> str:
    with pytest.raises(Refused) as caught:
        roots.path(name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        (f"{HOST}/videos/a.mp4", True),
        ("https://MEDIA.test/videos/a%20b.mp4?token=1", True),
        (f"{HOST}/videosecret/a.mp4", False),
        (f"{HOST}/other/a.mp4", False),
        (f"{HOST}/videos/../other/a.mp4", False),
        (f"{HOST}/videos/%2e%2e/other/a.mp4", False),
        (f"{HOST}/videos/%252e%252e/other/a.mp4", False),
        (f"{HOST}/videos/..%5cother/a.mp4", False),
        (f"{HOST}//videos/a.mp4/../../x", False),
        (f"{HOST}:8443/videos/a.mp4", False),
        ("https://media.test@evil.test/videos/a.mp4", False),
        ("https://evil.test/videos/a.mp4", False),
        ("http://media.test/videos/a.mp4", False),
        ("file:///videos/a.mp4", False),
        ("https://[/videos/a.mp4", False),
        ("videos/a.mp4", False),
    ],
)
def test_an_address_is_below_a_root_or_refused(address: str, allowed: bool) -> None:
    roots = Roots.of(f"{HOST}/videos/")
    if allowed:
        roots.allow(address)
    else:
        with refused(repr(address), "root=", error=Refused):
            roots.allow(address)


class Files(BaseHTTPRequestHandler):
    """Serves a file, and redirects: inside, to another folder, to another host."""

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        to = {
            "/videos/moved.mp4": "/videos/a.mp4",
            "/videos/aside.mp4": "/private/a.mp4",
            "/videos/away.mp4": f"http://localhost:{port}/videos/a.mp4",
            "/videos/local.mp4": "file:///etc/passwd",
        }.get(self.path)
        if to:
            self.send_response(302)
            self.send_header("Location", to)
            self.end_headers()
        elif self.path.endswith("/a.mp4"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"12345678")
        else:
            self.send_error(404)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def fetch(reception: Reception, address: str) -> bytes:
    file = io.BytesIO()
    reception._fetch(address, file)
    return file.getvalue()


def test_a_download_follows_redirects_below_the_root_alone(files: str, tmp_path: Path) -> None:
    reception = Reception(Roots.of(f"{files}/videos"), tmp_path, max_bytes=100, timeout=5)
    assert fetch(reception, f"{files}/videos/a.mp4") == fetch(reception, f"{files}/videos/moved.mp4") == b"12345678"
    for name, status in (("aside", 403), ("away", 403), ("local", 502), ("absent", 502)):
        with pytest.raises(Refused) as caught:
            fetch(reception, f"{files}/videos/{name}.mp4")
        assert caught.value.status == status, name
    with refused("max_mb=4e-06", error=Refused) as caught:
        fetch(Reception(reception.roots, tmp_path, max_bytes=4, timeout=5), f"{files}/videos/a.mp4")
    assert caught.value.status == 413


def test_a_host_that_is_silent_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        reception = Reception(Roots.of(address), tmp_path, max_bytes=100, timeout=0.05)
        with pytest.raises(Refused) as caught:
            fetch(reception, address)
        assert caught.value.status in (502, 504)


def test_a_video_that_doesnt_come_is_given_up(tmp_path: Path) -> None:
    reception = Reception(Roots.of(None), tmp_path, max_bytes=100, timeout=0.01)

    def wait() -> None:
        with refused("timeout=0.01", error=Refused) as caught:
            asyncio.run(reception._timed(asyncio.sleep(5)))
        assert caught.value.status == 408

    with ThreadPoolExecutor(1) as other:  # a browser's tests leave a loop in this thread
        other.submit(wait).result()


def test_a_video_that_cant_be_kept_is_refused(tmp_path: Path) -> None:
    reception = Reception(Roots.of(None), tmp_path / "gone", max_bytes=100, timeout=1)
    with refused("kept", error=Refused) as caught, reception._kept("a.mp4"):
        pass
    assert caught.value.status == 507
