"""Code of a test on a disk that is as good as full."""

import resource
import signal
import subprocess
import sys
from pathlib import Path


def on_a_full_disk(code: str, folder: Path) -> str:
    """What the code prints that runs in `folder`, where a write beyond 50 kB into a file fails."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, preexec_fn=_limit_files, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert not done.returncode, done
    return done.stdout


def _limit_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
