"""Ctrl-C at a moment when some library swallows whatever is raised."""

import subprocess
import sys

SWALLOWED = """
import os, signal, time
from tasks.engine.interruption import watch_for_ctrl_c
from tasks.engine.progress import stage_progress

signal.signal(signal.SIGINT, signal.{handler})
watch_for_ctrl_c()
with stage_progress("oracle") as progress:
    progress(1, 3)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        print("not interrupted")
    except BaseException:
        print("swallowed")
    progress(2, 3)
    print("went on")
"""


def outcome(handler: str) -> tuple[list[str], str]:
    """What is printed, and the last line of what is said of errors."""
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED.format(handler=handler)], capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    return done.stdout.splitlines(), (done.stderr.splitlines() or [""])[-1]


def test_the_next_progress_ends_the_run():
    assert outcome("default_int_handler") == (["swallowed"], "KeyboardInterrupt")


def test_where_ctrl_c_is_ignored_it_stays_so():
    said, _ = outcome("SIG_IGN")
    assert said == ["not interrupted", "went on"]
