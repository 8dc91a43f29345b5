"""Sentences of a text, and their cache on disk."""

import hashlib
import multiprocessing
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from recalign.recommender.sentences import MAX_WORDS, SentenceCache, halved, split_sentences


def vector_of(number: int) -> np.ndarray:
    return np.array([[number, number / 7]], dtype=np.float32)


def write_sentences(folder, first):
    """Body of a second process: forty parts of one sentence each."""
    cache = SentenceCache(folder)
    for number in range(first, first + 40):
        cache.add([f"sentence {number}"], vector_of(number))


def test_sentences_end_at_full_stops_and_line_breaks():
    text = "Enjoys War and Sci-Fi. Favours 1970s works!  Mood dark\n\n- likes v2.5 of it"
    assert split_sentences(text) == [
        "Enjoys War and Sci-Fi.",
        "Favours 1970s works!",
        "Mood dark",
        "- likes v2.5 of it",
    ]


def test_sentences_of_languages_without_blanks_end_at_their_own_marks():
    assert split_sentences("他喜欢战争片。气氛阴暗！他说：“真的？！”不；也许吧") == [
        "他喜欢战争片。", "气氛阴暗！", "他说：“真的？！”不；", "也许吧",
    ]  # fmt: skip


def test_a_sentence_is_halved_at_a_blank_or_in_the_middle_of_what_has_none():
    assert halved("Enjoys war and peace") == ["Enjoys war", "and peace"]
    assert halved("他喜欢老电影") == ["他喜欢", "老电影"]
    assert halved("ab") == ["a", "b"]
    assert halved("abcdef gh") == ["abcd", "ef gh"]


def test_a_blank_text_has_no_sentence():
    assert split_sentences("") == split_sentences(" \n ") == []


def test_an_overlong_sentence_is_cut_and_nothing_is_lost():
    words = [f"w{number}" for number in range(2 * MAX_WORDS + 5)]
    parts = split_sentences(" ".join(words))
    assert [len(part.split()) for part in parts] == [MAX_WORDS, MAX_WORDS, 5]
    assert " ".join(parts).split() == words


def test_what_one_cache_wrote_another_one_reads(tmp_path):
    SentenceCache(tmp_path).add(["a", "b"], np.array([[1, 2], [3, 4]], dtype=np.float32))
    later = SentenceCache(tmp_path)
    assert later.missing(["b", "c", "a"]) == ["c"]
    np.testing.assert_array_equal(later.vectors(["b", "a", "b"]), [[3, 4], [1, 2], [3, 4]])


def test_two_processes_that_write_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_sentences, args=(tmp_path, first)) for first in (0, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    cache = SentenceCache(tmp_path)
    expected = np.concatenate([vector_of(number) for number in range(60)])
    found = cache.vectors([f"sentence {number}" for number in range(60)])
    np.testing.assert_array_equal(found, expected)


def test_an_open_cache_sees_what_others_add_after_a_refresh(tmp_path):
    mine, other = SentenceCache(tmp_path), SentenceCache(tmp_path)
    other.add(["a"], vector_of(3))
    assert mine.missing(["a"]) == ["a"]
    mine.refresh()
    np.testing.assert_array_equal(mine.vectors(["a"]), vector_of(3))


def test_a_damaged_part_counts_as_missing(tmp_path):
    cache = SentenceCache(tmp_path)
    cache.add(["whole"], vector_of(1))
    cache.add(["torn"], vector_of(2))
    cache.add(["short"], vector_of(3))
    parts = {sentence_in(path): path for path in tmp_path.glob("*.keys")}
    torn = parts["torn"].with_suffix(".npy")
    torn.write_bytes(torn.read_bytes()[:-3])
    parts["short"].write_bytes(parts["short"].read_bytes()[:20])
    assert SentenceCache(tmp_path).missing(["whole", "torn", "short"]) == ["torn", "short"]


def test_without_a_folder_vectors_stay_in_memory():
    cache = SentenceCache(None)
    cache.add(["a"], vector_of(1))
    assert cache.missing(["a", "b"]) == ["b"]


def sentence_in(path):
    """Which of the test's sentences a part holds, by the digest of its text."""
    names = {hashlib.sha256(name.encode()).digest(): name for name in ("whole", "torn", "short")}
    return names[path.read_bytes()]


def test_a_folder_deleted_at_any_time_costs_only_the_encoding(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    cache = SentenceCache(folder)
    cache.add(["one."], np.ones((1, 3), np.float32))
    listed = list(folder.glob("*.keys"))
    shutil.rmtree(folder)
    monkeypatch.setattr(Path, "glob", lambda *_: listed)  # deleted just after it was listed
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    other = SentenceCache(folder)
    monkeypatch.undo()
    assert other.missing(["one."]) == ["one."]
    other.add(["one."], np.ones((1, 3), np.float32))
    assert SentenceCache(folder).missing(["one."]) == []
    assert cache.vectors(["one."]).tolist() == [[1, 1, 1]]


def test_a_folder_deleted_while_a_part_is_written_is_made_again(tmp_path, monkeypatch):
    folder, replace = tmp_path / "cache", os.replace
    gone: list[bool] = []

    def lose_the_folder_once(draft, target):
        if not gone:
            shutil.rmtree(folder)
            gone.append(True)
        replace(draft, target)

    monkeypatch.setattr(os, "replace", lose_the_folder_once)
    SentenceCache(folder).add(["one."], np.ones((1, 3), np.float32))
    assert SentenceCache(folder).missing(["one."]) == []


@pytest.fixture
def two_hundred_parts(tmp_path, monkeypatch):
    """A folder of parts of one sentence each, as versions that merged none have left them."""
    monkeypatch.setattr("recalign.recommender.sentences.MOST_SMALL", 1000)
    cache = SentenceCache(tmp_path)
    for number in range(200):
        cache.add([f"sentence {number}"], vector_of(number))
    monkeypatch.undo()
    return tmp_path


SENTENCES = [f"sentence {number}" for number in range(200)]
VECTORS = np.concatenate([vector_of(number) for number in range(200)])


def test_open_caches_hold_no_file_for_every_small_part(two_hundred_parts):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 50, hard))
    try:
        caches = [SentenceCache(two_hundred_parts) for _ in range(2)]
        assert [cache.missing(SENTENCES) for cache in caches] == [[], []]
        with (two_hundred_parts / "another").open("w"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files_are_no_missing_sentences(two_hundred_parts, monkeypatch):
    monkeypatch.setattr("recalign.recommender.sentences.SMALL", 0)  # all are mapped
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 50, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            SentenceCache(two_hundred_parts)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_small_parts_become_one_with_the_same_vectors(two_hundred_parts):
    opened_before = SentenceCache(two_hundred_parts)
    SentenceCache(two_hundred_parts).add(["one more"], vector_of(7))
    names = sorted(path.suffix for path in two_hundred_parts.iterdir())
    assert names == [".keys", ".npy"]
    for cache in (opened_before, SentenceCache(two_hundred_parts)):
        assert cache.vectors(SENTENCES).tobytes() == VECTORS.tobytes()
    opened_before.refresh()
    assert opened_before.vectors(["one more"]).tobytes() == vector_of(7).tobytes()


def test_parts_that_are_merged_under_a_reader_are_found_in_the_new_one(
    two_hundred_parts, monkeypatch
):
    merging = SentenceCache(two_hundred_parts)
    load, loaded = np.load, list[Path]()

    def load_and_let_merge(path, *given, **more):
        if len(loaded) == 100:
            merging.add(["one more"], vector_of(7))
        loaded.append(path)
        return load(path, *given, **more)

    monkeypatch.setattr(np, "load", load_and_let_merge)
    reader = SentenceCache(two_hundred_parts)
    assert len(list(two_hundred_parts.glob("*.keys"))) == 1
    assert reader.missing([*SENTENCES, "one more"]) == []
    assert reader.vectors(SENTENCES).tobytes() == VECTORS.tobytes()


def test_two_that_merge_at_once_lose_nothing(two_hundred_parts):
    first, second = SentenceCache(two_hundred_parts), SentenceCache(two_hundred_parts)
    first.add(["one more"], vector_of(7))
    second.add(["another"], vector_of(8))
    assert len(list(two_hundred_parts.glob("*.keys"))) == 2
    cache = SentenceCache(two_hundred_parts)
    assert cache.missing([*SENTENCES, "one more", "another"]) == []
    assert cache.vectors(SENTENCES).tobytes() == VECTORS.tobytes()
