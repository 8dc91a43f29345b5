"""One finished run of the smallest DPO4Rec, for all tests of this folder that need one."""

import shutil

import pytest

from tests.tasks.tiny_run import run_all


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The walk of a finished run; tests that change anything work on a copy of its root."""
    return run_all(tmp_path_factory.mktemp("tiny") / "artifacts")


@pytest.fixture
def copy(finished, tmp_path):
    """A root of its own with everything the finished run made."""
    return shutil.copytree(finished.store.root, tmp_path / "artifacts")
