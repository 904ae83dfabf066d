"""The example of Ray Data gives aim.features' numbers, all of them even where a worker is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from aim.features import verb as features
from aim.ground import config
from tests.conftest import ROOT, missing
from tests.toy import exits, videos

EXAMPLE = ROOT / "examples" / "ray_features.py"
WORKER = b"ray::MapWorker(MapBatches(Features"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    try:
        import ray.data  # noqa: F401
    except ImportError:
        missing("Ray isn't installed: pip install 'aim-video[ray]'")
    spec = spec_from_file_location("ray_features", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_fits_on_a_page() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60


@pytest.mark.parametrize("windows", [["window=0.25"], []], ids=str)
def test_a_worker_computes_what_aim_features_does(
    example: ModuleType, unbroken: Path, toy_cache: Path, tmp_path: Path, windows: list[str]
) -> None:
    import pyarrow

    paths = [tmp_path / name for name in ("a.mp4", "torn.mp4", "b.mp4")]
    for path, source in zip(paths[::2], videos(toy_cache), strict=False):
        shutil.copy(source, path)
    paths[1].write_text("no video")
    words = [f"checkpoint={unbroken}", "precision=fp32", "device=cpu", "reader=pyav", *windows]
    with exits(1):
        features.main(config.compose([*words, "workers=0", f"input={tmp_path}", f"out={tmp_path / 'out'}"], "features"))
    found = example.Features(words)(pyarrow.table({"path": [*map(str, paths)]})).to_pylist()
    assert [Path(row["path"]) for row in found] == paths
    assert found[1]["feats"] is None
    for row in (found[0], found[2]):
        assert row["error"] is None
        with np.load(tmp_path / "out" / f"{Path(row['path']).stem}.npz") as expected:
            np.testing.assert_array_equal(np.float32(row["feats"]), expected["feats"])
            np.testing.assert_array_equal(np.float32(row["seconds"]), expected["seconds"])


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_what_is_done_is_not_done_again(
    example: ModuleType, unbroken: Path, toy_cache: Path, tmp_path: Path
) -> None:
    import pyarrow.parquet

    paths = [str(path) for path in videos(toy_cache)]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "AIM_RAY_TEST": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path)
    }  # fmt: skip
    command = [
        sys.executable, str(EXAMPLE), str(tmp_path / "list.txt"), str(tmp_path / "out"), f"checkpoint={unbroken}",
        "precision=fp32", "device=cpu", "threads=1", "window=0.25",
    ]  # fmt: skip

    def run(count: int, *, kill: bool) -> list[str]:
        (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths[:count]))
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
            while kill and job.poll() is None:
                if workers := ours(str(tmp_path)):
                    os.kill(workers[0], signal.SIGKILL)
                    kill = False
                time.sleep(0.1)
            assert job.wait(280) == 0
        assert not kill
        return pyarrow.parquet.read_table(tmp_path / "out")["path"].to_pylist()

    assert sorted(run(12, kill=True)) == sorted(paths[:12])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert sorted(run(16, kill=False)) == sorted(paths[:16])
    assert before == {path: path.stat().st_mtime_ns for path in before}


def ours(mark: str) -> list[int]:
    """The actors of this test, by its mark in their environment."""
    found = list[int]()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (
                process.joinpath("cmdline").read_bytes().startswith(WORKER)
                and mark.encode() in (process / "environ").read_bytes()
            ):
                found.append(int(process.name))
        except OSError:
            continue  # it has ended
    return found
