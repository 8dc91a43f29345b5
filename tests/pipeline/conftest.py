"""One whole run of each method at its smallest, shared by the tests of this folder."""

import shutil

import pytest


@pytest.fixture(scope="session")
def finished(recalign, tmp_path_factory):
    """The artifact root of a finished DPO4Rec run; tests that change anything copy it."""
    root = tmp_path_factory.mktemp("finished") / "artifacts"
    done = recalign("run", "dpo4rec", "--preset", "tiny", "--root", str(root))
    assert "report: " in done.stdout
    return root


@pytest.fixture
def copy(finished, tmp_path):
    """A root of its own with everything the finished run made."""
    return shutil.copytree(finished, tmp_path / "artifacts")
