"""The deployments of prefect.yaml, registered once at this session's server."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent


def prefect(api, *arguments):
    """Prefect's own command line, in the checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PREFECT_API_URL": api, "PWD": str(ROOT)}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def deployments(prefect_api):
    """All deployments of prefect.yaml, by name."""
    prefect(prefect_api, "work-pool", "create", "recalign", "--type", "process", "--overwrite")
    prefect(prefect_api, "--no-prompt", "deploy", "--all")
    found = httpx.post(f"{prefect_api}/deployments/filter", json={}, timeout=30).json()
    return {deployment["name"]: deployment for deployment in found}
