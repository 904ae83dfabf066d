"""Fixtures for every test: the shared reference data, and a failure instead of a silent skip in CI."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aim.ground import config
from tests.composing import remembering

ROOT = Path(__file__).resolve().parent.parent


def missing(reason: str) -> None:
    """Skip the test, or fail it under AIM_REQUIRE_ALL=1, which CI sets."""
    if os.environ.get("AIM_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason} (AIM_REQUIRE_ALL=1)")
    pytest.skip(reason)


def shared_folder() -> Path:
    """The folder of recorded reference data: AIM_SHARED, by default ../shared beside the project."""
    return Path(os.environ.get("AIM_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session", autouse=True)
def _composed_once() -> Iterator[None]:
    """Compose equal command lines once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "compose", remembering(config.compose))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if not folder.is_dir():
        missing(f"no reference data at {folder}: set AIM_SHARED")
    return folder


@pytest.fixture(scope="session")
def toy_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder for the toy data, written once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory, toy_cache: Path) -> Path:
    """The run directory of the toy, trained in one go. No test may change it."""
    from tests.toy import run

    folder = tmp_path_factory.mktemp("unbroken")
    run(folder)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real Chromium without a window, one for all pages."""
    from playwright.sync_api import sync_playwright  # a GPU machine may do without

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing("no chromium, which pages are looked at in: apt-get install chromium")
    with sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()
