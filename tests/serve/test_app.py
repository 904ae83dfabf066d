import base64
import io
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from aim.engine.scores.calibration import Calibration
from aim.engine.scores.tasks import MultiLabel
from aim.engine.trained.answer import Asking, as_row
from aim.engine.trained.question import asking_of
from aim.engine.trained.recogniser import Recogniser, load
from aim.ground import config
from aim.predict import verb as predict
from aim.serve import connection, verb
from tests.messages import named, refused
from tests.toy import videos

Start = Callable[..., TestClient]


@pytest.fixture
def start(unbroken: Path, toy_cache: Path, tmp_path: Path) -> Iterator[Start]:
    """A function that starts the toy's server with these settings; it decodes in this process, too."""
    with ExitStack() as stack:

        def begin(*overrides: str, recogniser: Recogniser | None = None) -> TestClient:
            given = [f"checkpoint={unbroken}", "precision=fp32", "reader=pyav", "workers=1", *overrides]
            settings = config.build(config.compose(given, "serve"), verb.Settings)
            loaded = recogniser or load(unbroken)
            desk, app = verb.opened(
                settings, verb.reception_of(settings, tmp_path), loaded, "fp32", asking_of(settings, loaded)
            )
            desk.workers = 0
            stack.enter_context(desk)
            return TestClient(app, raise_server_exceptions=False)

        yield begin


def predicted(capsys: pytest.CaptureFixture[str], unbroken: Path, *overrides: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    given = [f"checkpoint={unbroken}", "reader=pyav", "workers=0", "precision=fp32", *overrides]
    predict.main(config.compose(given, "predict"))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_answers_are_aim_predicts_to_the_last_digit(
    start: Start, unbroken: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = videos(toy_cache)[:3]
    client = start(f"root={toy_cache}", "top=8")
    for path in paths:
        (expected,) = predicted(capsys, unbroken, f"input={path}", "top=8")
        sent = client.post(f"/predict?name={path}", content=path.read_bytes())
        named_there = client.post("/predict", json={"path": str(path)})
        assert sent.status_code == named_there.status_code == 200
        assert sent.json() == named_there.json() == expected
    assert list(client.get("/health").json()["classes"]) == load(unbroken).classes


def test_a_time_line_is_aim_predicts_with_its_segments(
    start: Start, unbroken: Path, toy_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, client = videos(toy_cache)[0], start("window=0.2", "stride=0.1", "smooth=0.2")
    rows = tmp_path / "rows.jsonl"
    expected = predicted(
        capsys, unbroken, f"input={path}", "window=0.2", "stride=0.1", "smooth=0.2", f"segments={rows}", "batch_size=1"
    )
    found = client.post(f"/timeline?name={path}", content=path.read_bytes()).json()
    assert found["windows"] == expected
    assert found["segments"] == [json.loads(line) for line in rows.read_text().splitlines()]
    other = client.post(f"/timeline?name={path}&window=0.3&smooth=0", content=path.read_bytes()).json()
    assert [row["start"] for row in other["windows"][:2]] == [0, 0.263] or other["windows"][1]["start"] == 0.3
    for wrong in ("window=-1", "smooth=-5", "smooth=nan"):
        refused_ = client.post(f"/timeline?{wrong}", content=path.read_bytes())
        assert refused_.status_code == 422
        named(refused_.json()["error"], wrong)
    looked = client.post(f"/look?name={path}", content=path.read_bytes()).json()
    assert looked["timeline"]["windows"] == expected
    assert looked["answer"]["label"] is not None
    picture = Image.open(io.BytesIO(base64.b64decode(looked["timeline"]["frames"][0]["jpeg"])))
    assert picture.size == (32, 32)


def test_several_labels_and_their_thresholds_are_as_in_aim_predict(
    start: Start, unbroken: Path, toy_cache: Path
) -> None:
    path = videos(toy_cache)[0]
    plain = load(unbroken)
    low_and_high = [0.0, 1.0] * 4
    several = replace(plain, task=MultiLabel(1.0), calibration=Calibration([2.0] * 8, low_and_high))
    client = start("top=1", recogniser=several)
    found = client.post("/predict?name=a", content=path.read_bytes()).json()
    (expected,) = Asking(plain.classes, 1, several.at_least, several.task).answers("a", several.predict_file(path))
    assert found == as_row(expected)
    assert sorted(found["label"]) == sorted(plain.classes[::2])
    about = client.get("/health").json()
    assert about["several"]
    assert about["at_least"] == low_and_high
    other = start("min_probability=0.5", f"background={plain.classes[0]}", recogniser=several)
    assert other.get("/health").json()["at_least"] == [None, *[0.5] * 7]


BAD = {
    "text": b"no video\n" * 9,
    "playlist.m3u8": b"#EXTM3U\n#EXTINF:5,\nfile:///etc/passwd\n",
    "list.mp4": b"ffconcat version 1.0\nfile 'VIDEO'\n",
    "stream.mp4": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 9 RTP/AVP 9\r\n",
    "still.gif": None,
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_video_or_names_others_is_refused_by_its_content(
    start: Start, toy_cache: Path, name: str
) -> None:
    path, client = videos(toy_cache)[0], start()
    content = BAD[name]
    if content is None:
        Image.new("RGB", (32, 32)).save(file := io.BytesIO(), "GIF")
        content = file.getvalue()
    answer = client.post(f"/predict?name={name}", content=content.replace(b"VIDEO", bytes(path)))
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert "aim-serve" not in answer.text  # no other path of this machine either
    assert client.post("/predict", content=path.read_bytes()).status_code == 200


def test_a_video_counts_for_its_content_whatever_its_name_and_type(start: Start, toy_cache: Path) -> None:
    path = videos(toy_cache)[0]
    client = start()
    for name, kind in (("a.txt", "text/plain"), ("../../etc/x\0", "image/png"), ("", "application/octet-stream")):
        answer = client.post(
            "/predict", params={"name": name}, content=path.read_bytes(), headers={"content-type": kind}
        )
        assert answer.status_code == 200
        assert answer.json()["path"] == name


def test_a_request_that_asks_for_nothing_is_told_what_to_send(start: Start, toy_cache: Path) -> None:
    client = start("max_mb=0.01")
    assert client.post("/predict").status_code == 400
    assert client.post("/predict", files={"file": b"x"}).status_code == 415
    for text in (
        b"",
        b"[]",
        b"{}",
        b'{"path": 1}',
        b'{"file": "x"}',
        b'{"path": "a", "url": "b"}',
        b"[" * 9999,
        b"\xff",
    ):
        answer = client.post("/predict", content=text, headers={"content-type": "application/json"})
        assert answer.status_code == 400, text
        named(answer.json()["error"], '"path"', '"url"')
    assert client.post("/predict", json={"path": "x" * 2**15}).status_code == 413
    assert client.post("/predict", json={"path": "a.mp4"}).status_code == 403
    assert client.post("/predict", json={"url": "http://127.0.0.1/a.mp4"}).status_code == 403
    for content in (bytes(10_001), iter([bytes(6000)] * 2)):  # told beforehand, and not
        answer = client.post("/predict", content=content)
        assert answer.status_code == 413
        named(answer.json()["error"], "max_mb=0.01")
    assert client.get("/predict").status_code == 405


def test_who_comes_when_all_places_are_taken_is_told_when_to_come_again(
    start: Start, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, client = videos(toy_cache)[0], start("queue=1")
    held, go = threading.Event(), threading.Event()
    model = Recogniser.score

    def score(*given: Any) -> Any:
        held.set()
        assert go.wait(60)
        return model(*given)

    monkeypatch.setattr(Recogniser, "score", score)
    first = list[int]()
    thread = threading.Thread(
        target=lambda: first.append(client.post("/predict", content=path.read_bytes()).status_code)
    )
    thread.start()
    assert held.wait(60)
    answer = client.post("/predict", content=path.read_bytes())
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    named(answer.json()["error"], "queue=1")
    assert client.get("/health").json()["accepted"] == 1
    go.set()
    thread.join()
    assert first == [200]
    assert client.post("/predict", content=path.read_bytes()).status_code == 200
    lines = client.get("/metrics").text.splitlines()
    assert 'aim_requests_total{path="/predict",status="200"} 2.0' in lines
    assert 'aim_requests_total{path="/predict",status="503"} 1.0' in lines
    assert 'aim_videos_total{outcome="answered"} 2.0' in lines
    assert "aim_accepted 0.0" in lines
    assert "aim_group_videos_sum 2.0" in lines


def test_openapi_names_what_there_is(start: Start) -> None:
    described = start().get("/openapi.json").json()
    assert {"/predict", "/timeline", "/health", "/metrics"} <= described["paths"].keys()
    body = described["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert body.keys() == {"video/*", "application/json"}
    assert "503" in described["paths"]["/predict"]["post"]["responses"]


def test_a_signal_ends_it_once_what_is_accepted_is_answered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, begun, answers, refusals = FastAPI(), threading.Event(), list[str](), list[bytes]()
    monkeypatch.setattr(connection, "HEADER", 0.1)

    @app.get("/slow")
    def slow() -> str:
        begun.set()
        time.sleep(0.4)
        return "done"

    def ask() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/slow", timeout=30) as answer:
            answers.append(answer.read().decode())

    def end() -> None:
        assert begun.wait(30)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as endless:
            endless.sendall(b"GET /slow HTTP/1.1\r\nX: " + b"a" * (2**16 + 64))
            refusals.append(endless.recv(12))
        with socket.create_connection(("127.0.0.1", port), timeout=30) as halting:
            halting.sendall(b"GET /slow HTTP/1.1\r\nX: ")
            refusals.append(halting.recv(12))  # nothing: it's closed
        os.kill(os.getpid(), signal.SIGTERM)

    with verb.listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        threads = [threading.Thread(target=each) for each in (ask, end)]
        for thread in threads:
            thread.start()
        verb.serve(app, listener)
    for thread in threads:
        thread.join()
    assert (answers, refusals) == (['"done"'], [b"HTTP/1.1 400", b""])
    named(capsys.readouterr().err, f"http://127.0.0.1:{port}/")


def test_a_port_or_a_host_that_cant_be_had_is_named_before_anything_is_loaded(unbroken: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with refused(f"port={port}", f"port={port + 1}", "port=0"):
            verb.main(config.compose([f"checkpoint={unbroken / 'nowhere'}", f"port={port}"], "serve"))
    with refused("host=203.0.113.7", "host=127.0.0.1"):
        verb.listening("203.0.113.7", 0)


@pytest.mark.parametrize(
    ("given", "pieces"),
    [
        ("queue=0", ["queue=0"]),
        ("max_mb=-1", ["max_mb=-1"]),
        ("timeout=0", ["timeout=0"]),
        ("port=70000", ["port=70000"]),
        ("workers=0", ["workers=0"]),
        ("batch_size=0", ["batch_size=0"]),
        ("top=0", ["top=0"]),
        ("window=0", ["window=0"]),
        ("smooth=-1", ["smooth=-1"]),
        ("smooth=nan", ["smooth=nan"]),
        ("stride=0", ["stride=0"]),
        ("max_mb=inf", ["max_mb=inf"]),
        ("reader=frames", ["reader=frames"]),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(given: str, pieces: list[str]) -> None:
    with refused(*pieces):
        config.build(config.compose(["checkpoint=x", given], "serve"), verb.Settings)


def test_without_the_extra_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with refused("'aim-video[serve]'"):
        verb.main(config.compose(["checkpoint=x"], "serve"))


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_a_real_browser_drops_a_video_and_sees_what_is_in_it(
    browser: Any, start: Start, toy_cache: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    path = videos(toy_cache)[0]
    named_oddly = tmp_path / "<img src=x onerror=alert(1)>.mp4"
    named_oddly.write_bytes(path.read_bytes())
    client = start("window=0.3", "stride=0.1")
    with verb.listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(client.app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        home = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        tab, wrong = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme), list[str]()
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: request.url.startswith((home, "data:")) or wrong.append(request.url))
        tab.goto(home)
        tab.set_input_files("#file", named_oddly)
        tab.wait_for_selector("#labels li.given")
        assert tab.inner_text("#title") == named_oddly.name
        assert tab.locator("#labels li").count() == 5
        percents = [float(text.rstrip(" %")) for text in tab.locator("#labels .n").all_inner_texts()]
        assert percents == sorted(percents, reverse=True)
        lengths = tab.evaluate("[...document.querySelectorAll('#labels i')].map(x => x.getBoundingClientRect().width)")
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] > 0
        assert tab.locator("#line span").count() >= 1
        frames = tab.locator("#frames img")
        assert 2 <= frames.count() <= 12
        assert frames.first.evaluate("image => image.naturalWidth") == 32
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert not tab.locator("#progress").is_visible()
        assert not wrong
        tab.set_input_files("#file", {"name": "notes.mp4", "mimeType": "video/mp4", "buffer": b"not a video"})
        tab.wait_for_selector("#state.no")
        named(tab.inner_text("#state"), "notes.mp4")
        assert not tab.locator("#found").is_visible()
        tab.close()
        server.should_exit = True
        thread.join()
