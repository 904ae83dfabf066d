import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aim.ground.signals import Interrupted, forwarded, stop_signals
from tests.conftest import ROOT
from tests.programs import command


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_that_was_answered_inside_is_not_answered_again_outside() -> None:
    """After a run has saved, its launcher may ask again, while a tracker closes."""
    with stop_signals(at_once=True) as outer:
        with stop_signals() as inner:
            send(signal.SIGTERM)
            assert inner
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert outer
    with pytest.raises(Interrupted), stop_signals(at_once=True):
        send(signal.SIGTERM)


def test_no_library_takes_a_stop_for_an_error_of_its_own() -> None:
    """An import that fails with any Exception counts as a missing library, say."""

    def library() -> None:
        try:
            send(signal.SIGTERM)
        except Exception as error:
            raise ImportError("of a library") from error

    with pytest.raises(Interrupted), stop_signals(at_once=True):
        library()


def test_the_second_ctrl_c_means_it() -> None:
    with stop_signals() as stop:
        send(signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_signals_are_passed_on_once_and_the_second_ctrl_c_kills() -> None:
    program = command("prints_signals")
    with (
        subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first,
        subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as second,
    ):
        for child in (first, second):
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        with forwarded(lambda: [first.pid]) as stop:
            send(signal.SIGUSR1)
            send(signal.SIGTERM)
            out, _ = first.communicate("\n", timeout=60)
        assert stop
        assert out.splitlines() == ["10"]
        with forwarded(lambda: [second.pid]):
            send(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGINT)
        assert second.wait(timeout=60) == -signal.SIGKILL


def test_a_part_whose_parent_is_gone_already_stops() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells of a parent's death")
    for parent, expected in ((os.getpid(), 0), (1, -signal.SIGTERM)):
        environment = os.environ | {"AIM_PARENT": str(parent)}
        done = subprocess.run(command("follows_parent"), env=environment, cwd=ROOT, capture_output=True, timeout=60)
        assert done.returncode == expected, done.stderr


def suspended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "T"


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_who_is_suspended_with_a_parent_goes_on_with_it_and_when_it_dies() -> None:
    # A group of its own is to the kernel a shell's job.
    program, environment = command("suspends"), os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, process_group=0) as parent:
        assert parent.stdout is not None
        other = int(parent.stdout.readline())
        parent.send_signal(signal.SIGTSTP)
        wait_until(lambda: suspended(other) and suspended(parent.pid))
        parent.send_signal(signal.SIGCONT)
        wait_until(lambda: not suspended(other) and not suspended(parent.pid))
        parent.send_signal(signal.SIGTSTP)
        wait_until(lambda: suspended(other) and suspended(parent.pid))
        parent.kill()
        wait_until(lambda: not suspended(other))
        os.kill(other, signal.SIGKILL)


def test_ctrl_z_where_no_shell_could_ever_end_it_suspends_nobody() -> None:
    program, environment = command("suspends"), os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        other = int(parent.stdout.readline())
        parent.send_signal(signal.SIGTSTP)
        time.sleep(0.3)
        wait_until(lambda: not suspended(other) and not suspended(parent.pid))
        for pid in (other, parent.pid):
            os.kill(pid, signal.SIGKILL)
