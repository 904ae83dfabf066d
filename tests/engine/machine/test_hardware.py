import math
from pathlib import Path

import pytest
import torch

from aim.engine.machine import hardware
from aim.engine.machine.hardware import check_fp8, resolve_device, resolve_precision, settle
from aim.engine.run import settings
from aim.engine.trained import checkpoint
from aim.ground import choices, config
from tests.messages import named, refused
from tests.toy import evaluate, measure, run

AUTO = {"device": "auto", "precision": "auto"}


@pytest.fixture
def plain_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a GPU, whose processor has AVX-512 but no bfloat16."""
    pretend(monkeypatch, tmp_path, "fpu avx2 avx512f avx512_vnni")


def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, *, line: str = "flags\t\t") -> None:
    """Let this machine have no GPU, and a processor with these flags."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: bf16 or not\n{line}: {flags}\n\n")
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(hardware, "DRIVER", tmp_path / "driver")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("line", "flags", "expected"),
    [
        ("flags\t\t", "fpu avx512f avx512_bf16", "bf16"),
        ("flags\t\t", "fpu amx_bf16 amx_tile", "bf16"),
        ("Features\t", "fp asimd bf16 i8mm", "bf16"),
        ("flags\t\t", "fpu avx2 avx512f avx512_vnni", "fp32"),
        ("flags\t\t", "fpu amx_tile amx_int8", "fp32"),
        ("Features\t", "fp asimd svebf16x", "fp32"),
    ],
)
def test_auto_is_bf16_on_processors_that_have_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, flags: str, expected: str
) -> None:
    pretend(monkeypatch, tmp_path, flags, line=line)
    assert resolve_precision("auto", "cpu") == expected


def test_auto_is_fp32_where_nothing_says_what_the_processor_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "none")
    assert resolve_precision("auto", "cpu") == "fp32"


@pytest.mark.parametrize(("major", "expected"), [(8, "bf16"), (9, "bf16"), (7, "fp32")])
def test_auto_is_bf16_on_gpus_from_ampere_on(monkeypatch: pytest.MonkeyPatch, major: int, expected: str) -> None:
    class Properties:
        pass

    Properties.major = major  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    assert resolve_device("auto") == "cuda"
    assert resolve_precision("auto", "cuda") == expected


@pytest.mark.usefixtures("plain_cpu")
def test_what_is_asked_for_is_taken_and_not_commented_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert resolve_device("cuda") == "cuda"
    assert settle({"device": "cpu", "precision": "bf16"}, "cpu") == "bf16"
    assert settle({"device": "cpu", "precision": "fp32"}, "cpu") == "fp32"
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("plain_cpu")
def test_what_auto_came_to_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    device = resolve_device("auto")
    assert settle(AUTO, device) == "fp32"
    said = capsys.readouterr().err
    named(said, "device=auto", "cpu", "precision=auto", "fp32")
    assert said.count("\n") == 1
    assert settle(AUTO, device, "bf16") == "bf16"
    named(capsys.readouterr().err, "precision=auto", "bf16")


def test_rank_0_alone_says_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    settle(AUTO, "cpu")
    assert capsys.readouterr().err == ""


def test_auto_is_the_default_of_every_experiment_but_the_demos() -> None:
    for path in (choices.CONFIGS / "experiment").rglob("*.yaml"):
        name = path.relative_to(choices.CONFIGS / "experiment").with_suffix("").as_posix()
        cfg = config.compose([f"+experiment={name}"])
        asked = (cfg.device, cfg.precision)
        assert asked == (("cpu", "fp32") if name in ("demo", "demo_hard") else ("auto", "auto")), name


@pytest.mark.usefixtures("toy_cache")
def test_a_run_that_goes_on_keeps_its_precision_and_its_result_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auto = ["device=auto", "precision=auto"]
    pretend(monkeypatch, tmp_path, "avx512_bf16")
    found = run(tmp_path / "run", *auto)
    assert found["precision"] == "bf16"
    (tmp_path / "run" / "results.json").unlink()
    capsys.readouterr()

    pretend(monkeypatch, tmp_path, "avx2")
    assert run(tmp_path / "run", *auto)["precision"] == "bf16"
    named(capsys.readouterr().err, "precision=auto", "bf16")
    assert run(tmp_path / "other", *auto)["precision"] == "fp32"
    settings = config.load(tmp_path / "other" / "config.yaml")
    assert (settings["device"], settings["precision"]) == ("auto", "auto")


def test_a_gpu_that_is_there_and_does_not_work_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain_cpu: None
) -> None:
    assert resolve_device("auto") == "cpu"
    (tmp_path / "driver").touch()
    assert resolve_device("auto") == "cuda"  # whose check gives the reason


def with_gpus(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int]) -> None:
    """Let this machine have such GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda n: capabilities[n])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda n: f"GPU {n}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def test_where_one_rank_has_no_compiler_none_compiles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hardware, "lacking", lambda: "")
    assert hardware.settle_compile("gpu", "cuda") == "gpu"
    monkeypatch.setattr(hardware.distributed, "gather", lambda mine: [mine, ("C compiler", "node7"), mine])
    assert hardware.settle_compile(True, "cpu") is True
    assert hardware.settle_compile(False, "cuda") is False
    assert capsys.readouterr().err == ""
    assert hardware.settle_compile("gpu", "cuda") is False
    (line,) = capsys.readouterr().err.splitlines()
    named(line, "warning:", "train.compile=gpu", "1", "node7", "gcc", "python3-dev")


def test_fp32_is_float32_in_convolutions_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(hardware, "compute_by_large_kernels", lambda model: None)  # of trunks alone
    model = torch.nn.Linear(1, 1, device="meta")
    hardware.suit(model, "bf16", "cuda")  # type: ignore[arg-type]
    assert torch.backends.cudnn.allow_tf32
    hardware.suit(model, "fp32", "cuda")  # type: ignore[arg-type]
    assert not torch.backends.cudnn.allow_tf32


def test_gpus_from_ada_on_have_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, (8, 9), (9, 0))
    check_fp8("cuda")
    with_gpus(monkeypatch, (9, 0), (8, 6))
    with refused("precision=fp8", "NVIDIA", "GPU", "8.9", "1", "precision=auto"):
        check_fp8("cuda")
    with_gpus(monkeypatch, (9, 4))
    monkeypatch.setattr(torch.version, "cuda", None)  # of another maker
    with refused("GPU", "0", "precision=fp8", "precision=auto"):
        check_fp8("cuda")


@pytest.mark.usefixtures("plain_cpu")
def test_fp8_on_a_cpu_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_CACHE", str(tmp_path / "cache"))
    for verb in (run, measure):
        with refused("precision=fp8", "CPU", "precision=auto"):
            verb(tmp_path / "run", "precision=fp8", *(["what=model"] if verb is measure else []))
    assert not list(tmp_path.glob("*[!o]"))  # but cpuinfo


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["adapter=full"], ["precision=fp8", "frozen", "16", "precision=bf16"]),
        (["adapter=lora"], ["precision=fp8", "frozen", "16", "precision=bf16"]),
        (["train.shard=true"], ["train.shard=true", "precision=fp8", "precision=bf16"]),
    ],
    ids=str,
)
def test_what_has_no_use_for_fp8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], expected: list[str]
) -> None:
    monkeypatch.setattr(settings, "check_fp8", lambda device: None)
    with refused(*expected):
        run(tmp_path / "run", "precision=fp8", *overrides)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("toy_cache")
def test_a_run_in_fp8_goes_on_in_it_and_its_checkpoint_is_tested_in_bf16(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings, "check_fp8", lambda device: None)  # a CPU computes the same, slowly
    assert run(tmp_path / "run", "precision=fp8", "train.epochs=1")["precision"] == "fp8"
    (tmp_path / "run" / "results.json").unlink()
    found = run(tmp_path / "run", "precision=fp8")
    assert (found["precision"], checkpoint.read_weights(tmp_path / "run").precision) == ("fp8", "fp8")
    with refused("precision", "fp8", "bf16", "run_dir=DIR"):
        run(tmp_path / "run", "precision=bf16")
    monkeypatch.undo()
    capsys.readouterr()
    tested = evaluate(tmp_path / "run", tmp_path / "eval", toy=())
    assert tested["precision"] == "bf16"
    named(capsys.readouterr().err, "fp8", "bf16")


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_is_the_machines_or_the_batch_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int
) -> None:
    files = ("memory.max", "memory.current", "inactive_file"), "max"
    where, line = tmp_path / "fs", "0::/slurm/job_7/step_0"
    if version == 1:  # without a limit it gives a number, and a machine may have no version 2
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"), "9223372036854771712"
        where, line = where / "memory", "4:memory:/slurm/job_7/step_0"
    (limited, taken, cache), unlimited = files
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:  4000 kB\nHugePages_Total:  0\n")
    (tmp_path / "cgroup").write_text(f"9:name=systemd:/elsewhere\n{line}\n")
    monkeypatch.setattr(hardware, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(hardware, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path / "fs")
    assert hardware.free_memory() == 4000 * 1024
    for name, limit in (("slurm/job_7/step_0", unlimited), ("slurm/job_7", "3000000"), ("slurm", "9000000")):
        folder = where / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limited).write_text(f"{limit}\n")
        (folder / taken).write_text("1700000\n")
        (folder / "memory.stat").write_text(f"anon 5\n{cache} 700000\n")
    assert hardware.free_memory() == 2_000_000
    monkeypatch.setattr(hardware, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(hardware, "CGROUP", tmp_path / "none")
    assert hardware.free_memory() == math.inf
