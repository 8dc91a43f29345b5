"""Where an artifact was made: commit, packages, memory."""

import os
import resource
import subprocess
import sys
from functools import cache, partial
from importlib import metadata
from pathlib import Path

PACKAGES = "recalign torch transformers trl peft polars pyarrow sentence-transformers prefect"


@cache
def git_commit() -> str:
    """Commit of the checkout this code runs from, with "+" when it has changes; "" outside one."""
    here = Path(__file__).parent
    git = partial(subprocess.run, cwd=here, capture_output=True, check=True, text=True)
    try:
        commit = git(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changed else "")


@cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that decide results."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES.split():
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def peak_memory_mb() -> float:
    """Largest resident memory so far of this process or of one that it waited for, in MB."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS tells bytes, Linux kilobytes
    return max(resource.getrusage(who).ru_maxrss for who in both) / unit


def peak_gpu_memory_mb() -> float:
    """Most memory so far that torch held on one GPU for this process, in MB; 0 where it used none.

    What did not import torch used none: it is not imported to look.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0.0
    numbers = range(torch.cuda.device_count())
    return max(float(torch.cuda.max_memory_allocated(number)) for number in numbers) / 2**20


def peaks_mb() -> tuple[float, float]:
    """`peak_memory_mb` and `peak_gpu_memory_mb`, as a manifest tells them."""
    return round(peak_memory_mb(), 1), round(peak_gpu_memory_mb(), 1)


def cpu_seconds() -> float:
    """CPU seconds so far of this process and of all that it waited for."""
    return sum(os.times()[:4])
