"""The start, end and restart of ranks."""

import io
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from aim.engine.machine import launcher, peers
from aim.engine.machine.peers import BROKEN, LOST, End, Peers, is_torn
from aim.ground.errors import RankError, UserError
from aim.ground.signals import INTERRUPTED, NOTHING_LOST
from tests.messages import named, refused, unnamed
from tests.ranks import start

LOST_NOTHING = ["aim:"]


@pytest.mark.parametrize(
    ("case", "code", "expected"),
    [
        pytest.param("bad_video", 2, r"aim: error: .*\b1: x\.mp4 .*\n", marks=pytest.mark.slow),
        pytest.param(
            "bug",
            1,
            r"\[rank1\]: Traceback[^\n]*\n(\[rank1\]:   .*\n)+\[rank1\]: ZeroDivisionError\n",
            marks=pytest.mark.slow,
        ),
        ("killed", 1, r"aim: error: .*\b0\b.*\naim: error: .*\b1\b.*\bSIGKILL\b.*\n"),
        pytest.param("stopped_early", INTERRUPTED, r"aim: .*\n", marks=pytest.mark.slow),
    ],
)
def test_one_rank_says_what_happened_and_all_leave(tmp_path: Path, case: str, code: int, expected: str) -> None:
    process = start(case, ranks=3 if case == "bad_video" else 2)
    _, stderr = process.communicate(timeout=120)
    assert re.fullmatch(expected, stderr), stderr
    assert process.returncode == code


@pytest.mark.parametrize(
    ("text", "torn"),
    [
        ("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1", True),
        ("[/pytorch/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation", True),
        ("NCCL error in: /p/NCCLUtils.cpp:93, remote process exited or there was a network error", True),
        ("wait timeout after 5000ms, keys: /default_pg/0//cpu//0/1", True),
        ("Gloo connectFullMesh failed with a timeout", False),
        ("[enforce fail at /p/gloo/transport/tcp/device.cc:84] ifa != nullptr. Unable to find address for: x0", False),
        ("a worker failed on /data/igloo/1.mp4:\nTraceback", False),
    ],
)
def test_a_lost_rank_is_told_from_an_error_whose_file_has_such_a_name(text: str, torn: bool) -> None:
    assert is_torn(RuntimeError(text)) == torn


DUPLICATE = "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 4f000"
NCCL = "NCCL error in: /p/NCCLUtils.cpp:93, invalid usage (run with NCCL_DEBUG=WARN for details), NCCL version 2.30.7"
LISTEN = "Gloo connectFullMesh failed with [/p/pair.cc:545] no error"


@pytest.mark.parametrize("rank", [0, 7])
@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (
            dist.DistBackendError(f"{NCCL}\nncclInvalidUsage: This usually\nLast error:\n{DUPLICATE}"),
            1,
            [NCCL, DUPLICATE],
        ),
        (RuntimeError(f"{LISTEN}\nand more"), 1, [LISTEN]),
        (RuntimeError("[/p/gloo/pair.cc:5] Connection closed by peer [::1]:9. This is typically x"), LOST, ["[::1]:9"]),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nCUDA"), BROKEN, ["GPU", "ECC"]),
    ],
    ids=["nccl", "gloo", "lost", "broken"],
)
def test_the_cause_is_told_and_whether_it_is_another_rank(
    monkeypatch: pytest.MonkeyPatch, rank: int, error: RuntimeError, code: int, expected: list[str]
) -> None:
    monkeypatch.setattr(peers, "FAILING_SECONDS", 0.1)
    for key, value in (("WORLD_SIZE", "8"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(key, value)
    error.add_note("at step 5 of 9")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    with pytest.raises(RankError) as caught:
        Peers(store, "told", rank, 8).leave(type(error), error, None)
    text = str(caught.value)
    assert caught.value.code == code
    assert text.startswith(f"rank {rank} on {socket.gethostname()}")
    assert all(piece in text for piece in [*expected, "at step 5 of 9"]), text
    assert ("lost contact" in text) == (code == LOST)
    interfaces = ["GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_DEBUG=INFO", "docs/cluster.md"]
    (named if code == 1 else unnamed)(text, *interfaces)
    assert "\n" not in text


def test_a_rank_that_knows_why_is_heard_after_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that know, one is enough."""
    monkeypatch.setattr(peers, "FAILING_SECONDS", 0.1)
    store, torn = dist.TCPStore("127.0.0.1", 0, is_master=True), RuntimeError("Connection reset by peer")
    told = list[tuple[int, str]]()
    for rank, error in enumerate((torn, UserError("x.mp4 can't be read"), torn)):
        try:
            Peers(store, "heard", rank, 3).leave(type(error), error, None)
        except RankError as found:
            told.append((found.code, str(found)))
        except SystemExit as silent:
            told.append((int(str(silent.code)), ""))
    assert [code for code, _ in told] == [LOST, 2, LOST]
    named(told[1][1], "1", "x.mp4")
    assert told[2][1] == ""


@pytest.mark.slow
def test_a_wrong_network_interface_is_named_by_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nope0")
    process = start("bug")
    _, stderr = process.communicate(timeout=120)
    (said,) = stderr.splitlines()
    named(said, "error:", "nope0", "GLOO_SOCKET_IFNAME")
    assert process.returncode == 1


@pytest.mark.slow
def test_a_signal_at_the_launcher_alone_reaches_the_ranks_which_may_take_their_time(tmp_path: Path) -> None:
    process = start("trains")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["shared by 0\n"] * 2
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert stdout == "tracker closed\n"
    (said,) = stderr.splitlines()
    named(said, "aim:", "saved")
    assert process.returncode == INTERRUPTED


def test_each_rank_looks_after_the_next_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = list[int]()
    monkeypatch.setattr(peers, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(peers, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(peers, "FAILING_SECONDS", 0.1)
    monkeypatch.setattr(peers.os, "_exit", ends.append)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    # One is done earlier than the other.
    one, other = (Peers(store, "sound", rank, 2) for rank in range(2))
    time.sleep(0.5)
    other.leave(None, None, None)
    time.sleep(0.5)
    one.leave(None, None, None)
    # One comes later than the other.
    one = Peers(store, "late", 0, 2)
    time.sleep(0.5)
    other = Peers(store, "late", 1, 2)
    time.sleep(0.1)
    for each in (one, other):
        each.leave(None, None, None)
    assert not ends
    # One stands still.
    one, other = (Peers(store, "silent", rank, 2) for rank in range(2))
    other._left.set()
    one._guard.join(timeout=10)
    assert ends == [LOST]
    named(capsys.readouterr().err, "0", "1", "error:")
    for each in (one, other):
        each.leave(None, None, None)


def test_a_rank_ends_also_where_nobody_hears_why(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = list[int]()
    monkeypatch.setattr(peers.os, "_exit", ends.append)
    rank = Peers(dist.TCPStore("127.0.0.1", 0, is_master=True), "deaf", 0, 1)
    rank.leave(None, None, None)
    monkeypatch.setattr(peers.sys, "stderr", (closed := io.StringIO()))
    closed.close()
    with pytest.raises(ValueError, match="closed file"):
        rank._give_up(End(1, 0.0, "rank 1"))
    assert ends == [1]


@pytest.mark.slow
def test_a_rank_that_is_silent_is_lost_and_one_whose_whole_job_was_suspended_is_not(tmp_path: Path) -> None:
    """A suspended process is like a machine without power: its connections stay."""
    process = start("silent")
    assert process.stdout is not None
    pids = dict(process.stdout.readline().split() for _ in range(2))
    for number in (signal.SIGTSTP, signal.SIGCONT):  # Ctrl-Z, and fg
        process.send_signal(number)
        time.sleep(4)
        states = [Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in (process.pid, *pids.values())]
        assert all((state == "T") == (number == signal.SIGTSTP) for state in states), states
    os.kill(int(pids["1"]), signal.SIGSTOP)
    assert process.stderr is not None
    said = process.stderr.readline()
    os.kill(int(pids["1"]), signal.SIGCONT)  # spares the launcher half a minute
    process.communicate(timeout=60)
    assert re.fullmatch(
        rf"aim: error: .*\b0\b.*\b1 .*\b{re.escape(socket.gethostname())}\b.*\b2\b.*\b5 .*\b9\b.*\n",
        said,
    )
    assert process.returncode == 1


@pytest.mark.slow
def test_a_rank_that_stands_still_for_good_is_ended_and_not_taken_for_one_without_memory(tmp_path: Path) -> None:
    process = start("silent")
    assert process.stdout is not None
    pids = dict(process.stdout.readline().split() for _ in range(2))
    os.kill(int(pids["1"]), signal.SIGSTOP)
    _, stderr = process.communicate(timeout=120)
    first, last = stderr.splitlines()
    named(first, "error:", "0", "1")
    named(last, "error:", "1")
    unnamed(last, "SIGKILL")
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("shared", "ranks", "expected"),
    [
        ("True", 2, ["launcher"]),
        ("True", 4, ["launcher", "node7"]),
        ("False", 4, ["0", "node7"]),
    ],
)
def test_who_keeps_the_store_has_a_name(
    monkeypatch: pytest.MonkeyPatch, shared: str, ranks: int, expected: list[str]
) -> None:
    for key, value in {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node7"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", shared)
    named(peers._keeper(), *expected)
    assert ("node7" in peers._keeper()) == (ranks == 4)


@pytest.mark.slow
def test_ranks_whose_store_is_silent_leave(tmp_path: Path) -> None:
    process = start("silent")
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    assert process.stderr is not None
    os.kill(process.pid, signal.SIGSTOP)
    said = process.stderr.readline()
    os.kill(process.pid, signal.SIGCONT)
    process.communicate(timeout=60)
    named(said, "error:", "launcher", "2", "5", "9")
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("codes", "asked", "expected", "said"),
    [
        ({}, False, 0, []),
        ({}, True, 0, []),  # it ended before the signal
        ({0: 75, 1: 75}, True, 75, []),
        ({1: 75, 0: -15}, False, 75, []),
        ({0: -2, 1: -2}, True, 75, LOST_NOTHING),
        ({0: 75, 1: 2}, True, 2, []),
        ({0: 75, 1: 1}, True, 1, []),
        ({1: 3, 0: -15}, False, 3, []),
        ({1: 2, 0: -9}, False, 2, []),
        ({1: -15, 0: 75}, False, 1, ["error:", "1", "SIGTERM"]),
        ({0: 1, 1: -11}, False, 1, ["error:", "1", "SIGSEGV"]),
        ({1: -15, 0: -9}, True, 75, LOST_NOTHING),
        ({0: 75, 1: -9}, True, 1, ["error:", "1", "SIGKILL", "memory"]),
        ({0: 1, 1: launcher.DEAF}, False, 1, ["error:", "1"]),
        ({1: -15, 0: launcher.DEAF}, True, 75, LOST_NOTHING),
        ({0: LOST, 1: -15}, False, 1, []),
        ({1: -6, 0: LOST}, False, 1, ["error:", "1", "SIGABRT"]),
        ({1: -6, 0: 1}, False, 1, []),  # NCCL's, after a bug that rank 0 has told
        ({1: -6, 0: 3}, False, 1, ["error:", "1", "SIGABRT"]),
        ({0: LOST, 1: BROKEN}, False, 1, ["error:", "1", "GPU"]),
    ],
)
def test_the_exit_code_of_all_ranks(
    capsys: pytest.CaptureFixture[str], codes: dict[int, int], asked: bool, expected: int, said: list[str]
) -> None:
    assert launcher.verdict(codes, asked=asked) == expected
    err = capsys.readouterr().err
    assert err.count("\n") == bool(said)
    if said:
        named(err, *said)
        assert (NOTHING_LOST in err) == (said is LOST_NOTHING)


@pytest.mark.parametrize(
    ("ends", "restarts", "expected", "said"),
    [
        ([{1: -9, 0: 1}, {}], 3, 0, ["2"]),
        ([{1: -9, 0: 1}, {0: -11, 1: 1}], 1, 1, ["0", ""]),
        ([{1: -9, 0: 1}], 0, 1, [""]),
        ([{0: 1, 1: launcher.DEAF}, {}], 3, 0, ["2"]),
        ([{1: -9, 0: 1}, {0: 75, 1: 75}], 3, 75, ["2"]),
        ([{1: 2, 0: -9}], 3, 2, []),  # a user's error: it would repeat
        ([{1: 1, 0: -15}], 3, 1, []),  # a bug
        ([{0: -6, 1: 1}], 3, 1, []),  # likewise; by SIGABRT NCCL ends who is torn off
        ([{0: -6, 1: LOST}, {}], 3, 0, ["2"]),
        ([{1: BROKEN, 0: -15}, {}], 3, 0, ["2"]),
        ([{1: 75, 0: 75}], 3, 75, []),
    ],
)
def test_ranks_start_again_where_one_was_killed_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ends: list[dict[int, int]],
    restarts: int,
    expected: int,
    said: list[str],
) -> None:
    left = [*ends]
    monkeypatch.setattr(launcher, "run_ranks", lambda *_: (left.pop(0), False))
    assert launcher.launch(["program"], 2, restarts) == expected
    assert left == []
    lines = capsys.readouterr().err.splitlines()
    # the restarts that are left, on a line that is no error; or the error
    assert ["" if "error:" in line else re.sub(r"\D", "", line.partition("; ")[2]) for line in lines] == said


def test_ranks_that_start_again_count_their_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their saves include the time of those before them."""
    began, ends = list[float](), [{1: -9, 0: 1}, {}]
    monkeypatch.setattr(launcher, "run_ranks", lambda *given: (began.append(given[2]), (ends.pop(0), False))[1])
    now = time.time()
    assert launcher.launch(["program"], 2, 3) == 0
    assert began[0] < now - 0.1  # this process has been running for a while
    assert began[1] >= now


def test_a_run_that_was_asked_to_stop_does_not_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "run_ranks", lambda *_: ({0: 75, 1: -9}, True))
    assert launcher.launch(["program"], 2, 3) == 1


def test_a_negative_number_of_restarts_is_refused() -> None:
    with refused("restarts=-1"):
        launcher.launch(["program"], 2, -1)
