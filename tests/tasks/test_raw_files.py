"""An artifact bears the digests of the raw files that it really holds."""

import hashlib
import os

import pytest

from recalign.artifacts.digests import DigestMemory, file_digests
from recalign.errors import UserError
from tasks.engine.stage import unchanged


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("one\n")
    return path


def memory(raw):
    return DigestMemory(raw.with_name("digests.json")).digest


def test_files_of_one_name_are_told_apart_by_their_place(raw):
    other = raw.parent / "sub" / raw.name
    other.parent.mkdir()
    other.write_text("two\n")
    found = file_digests({"raw": [raw, other]}, memory(raw))
    assert found == {
        "raw/ratings.csv": hashlib.sha256(b"one\n").hexdigest(),
        "raw/ratings.csv (1)": hashlib.sha256(b"two\n").hexdigest(),
    }


def appended(path):
    with path.open("a") as file:
        file.write("more\n")


def swapped_and_put_back(path):
    kept = path.read_text()
    path.write_text("two\n")
    path.write_text(kept)
    os.utime(path, ns=(1, 1))


REFUSED = r"ratings.csv changed while it was read: run again"


@pytest.mark.parametrize("change", [appended, swapped_and_put_back])
def test_a_file_that_is_written_while_it_is_read_is_refused_though_it_be_the_same_again(
    raw, change
):
    digests = file_digests({"raw": [raw]}, memory(raw))
    reading = unchanged({"raw": [raw]}, digests, memory(raw))
    reading.__enter__()
    change(raw)
    with pytest.raises(UserError, match=REFUSED):
        reading.__exit__(None, None, None)


def test_a_file_that_was_written_after_its_digest_was_taken_is_not_read(raw):
    digests = file_digests({"raw": [raw]}, memory(raw))
    swapped_and_put_back(raw)
    with unchanged({"raw": [raw]}, digests, memory(raw)):
        assert raw.read_text() == "one\n"
    appended(raw)
    with pytest.raises(UserError, match=REFUSED):
        unchanged({"raw": [raw]}, digests, memory(raw)).__enter__()


def test_a_file_that_is_deleted_meanwhile_is_told_too(raw):
    digests = file_digests({"raw": [raw]}, memory(raw))
    reading = unchanged({"raw": [raw]}, digests, memory(raw))
    reading.__enter__()
    raw.unlink()
    with pytest.raises(UserError, match=REFUSED):
        reading.__exit__(None, None, None)
    with pytest.raises(UserError, match=REFUSED):
        unchanged({"raw": [raw]}, digests, memory(raw)).__enter__()
