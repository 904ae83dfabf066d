"""A wheel carries the configs and the demo's trunk, and works far from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from aim.ground import choices
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):  # like a clone: no build leftovers
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(folder), str(source)], check=True, timeout=200)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_every_config_and_the_demos_weights(installed: Path) -> None:
    def names(folder: Path) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml")}

    assert names(installed / "aim" / "configs") == names(choices.CONFIGS)
    modules = {path.relative_to(ROOT) for path in (ROOT / "aim").rglob("*.py")}
    assert {path.relative_to(installed) for path in (installed / "aim").rglob("*.py")} == modules
    for folder in (ROOT / "aim").glob("*/templates"):
        pages = {path.name for path in folder.iterdir()}
        assert {path.name for path in (installed / folder.relative_to(ROOT)).iterdir()} == pages
    weights = [path.name for kind in ("safetensors", "json") for path in (ROOT / "aim" / "weights").glob(f"*.{kind}")]
    assert {path.name for path in (installed / "aim" / "weights").iterdir() if path.suffix != ".py"} == set(weights)
    assert sum((installed / "aim" / "weights" / name).stat().st_size for name in weights) < 16e6
    assert not (installed / "tests").exists()
    (entry_points,) = installed.glob("aim_video-*.dist-info/entry_points.txt")
    assert "aim = aim.__main__:main" in entry_points.read_text(encoding="utf-8")


def test_the_demo_starts_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "AIM_CACHE": str(tmp_path / "cache")}
    small = ["data.lists.num_train=16", "data.lists.num_val=8", "data.workers=0", "train.epochs=1", "reader=pyav"]
    code = (
        "import aim, sys; print(aim.__file__); from aim.shell import command; command.entrypoint('aim.train', 'config')"
    )
    command = [sys.executable, "-P", "-c", code, "+experiment=demo", *small]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed)), done.stdout
    assert len(list((tmp_path / "runs").glob("*/results.json"))) == 1
