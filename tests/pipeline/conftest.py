"""One whole run of each method at its smallest, shared by the tests of this folder."""

import os
import shutil

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def finished(recalign, tmp_path_factory):
    """The artifact root of a finished DPO4Rec run; tests that change anything copy it.

    Test processes share it: the first that needs it makes it, the others wait for that.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    root = shared / "finished" / "artifacts"
    with FileLock(shared / "finished.lock"):
        if not list(root.glob("report/[!.]*/manifest.json")):
            done = recalign("run", "dpo4rec", "--preset", "tiny", "--root", str(root))
            assert "report: " in done.stdout
    return root


@pytest.fixture
def copy(finished, tmp_path):
    """A root of its own with everything the finished run made."""
    return shutil.copytree(finished, tmp_path / "artifacts")
