"""Ctrl-C or SIGTERM at a moment when some library, or Python, swallows whatever is raised."""

import signal
import subprocess
import sys

import pytest

SWALLOWED = """
import os, signal, time
from prefect.utilities.engine import capture_sigterm
from tasks.engine.interruption import watch_for_ctrl_c
from tasks.engine.progress import stage_progress

class ClearedUp:
    def __del__(self):
        os.kill(os.getpid(), signal.{number})
        time.sleep(0.1)
        print("not ended")

signal.signal(signal.SIGINT, signal.{handler})
watch_for_ctrl_c()
with capture_sigterm(), stage_progress("oracle") as progress:
    progress(1, 3)
    try:
        {end}
    except BaseException:
        print("swallowed")
    progress(2, 3)
    print("went on")
"""
TRIED = "os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1); print('not interrupted')"


def outcome(
    end: str, handler: str = "default_int_handler", number: str = "SIGINT"
) -> tuple[int, list[str], str]:
    """The exit code, what is printed, and what is said of errors."""
    program = SWALLOWED.format(end=end, handler=handler, number=number)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_the_next_progress_ends_the_run():
    _, printed, said = outcome(TRIED)
    assert printed == ["swallowed"]
    assert said.splitlines()[-1] == "KeyboardInterrupt"


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_end_raised_while_an_object_is_cleared_up_is_not_lost_nor_printed(number):
    code, printed, said = outcome("ClearedUp()", number=number)
    assert (code, printed) == (-signal.Signals[number], [])
    assert "Exception ignored" not in said


def test_where_ctrl_c_is_ignored_it_stays_so():
    assert outcome(TRIED, "SIG_IGN")[:2] == (0, ["not interrupted", "went on"])
