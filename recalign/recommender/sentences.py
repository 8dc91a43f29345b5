"""Sentences of a text, and a cache of their vectors that several processes may write at once."""

import hashlib
import os
import re
import uuid
from pathlib import Path

import numpy as np

MAX_WORDS = 120
"""Longer sentences are cut. What is still too long for an encoder, the encoder itself halves."""

ENCODER_WEIGHTS = "encoder_weights"
"""Figure of a recommender: the digest of the encoder's weights that it was fitted with."""

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\s*\n+\s*|(?<=[。！？；])(?![。！？；”’」』）])")
_ITEM_PART_END = re.compile(r"[:;]\s+|\s*\n+\s*")


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, white space normalised; [] for a blank text."""
    return _pieces(_SENTENCE_END.split(text))


def split_item(text: str) -> list[str]:
    """Title and attributes of an item's text, 'Heat (1995): genre Action; era 1990s'.

    A full stop parts nothing here: it is as likely part of a title ("Dr. Strangelove").
    """
    return _pieces(_ITEM_PART_END.split(text))


def _pieces(parts: list[str]) -> list[str]:
    sentences = []
    for part in parts:
        words = part.split()
        sentences += [
            " ".join(words[start : start + MAX_WORDS]) for start in range(0, len(words), MAX_WORDS)
        ]
    return sentences


def halved(sentence: str) -> list[str]:
    """Both parts of a sentence of two characters or more, cut at the blank before its middle.

    Without a blank there, as in languages that write none, at the middle itself.
    """
    middle = len(sentence) // 2
    cut = sentence.rfind(" ", 1, middle + 1)
    cut = middle if cut < 0 else cut
    return [sentence[:cut], sentence[cut:].lstrip()]


class SentenceCache:
    """Vectors by sentence; with a folder, on disk as parts that are only ever added.

    A part is a pair of files, `<name>.npy` (vectors, float32 [n, e]) and `<name>.keys` (SHA-256
    digests, n times 32 bytes). Both are put in place by an atomic rename, the keys last, under a
    name no other process uses: readers never see half a part and writers never wait. Parts that
    cannot be read are left out, so their sentences are encoded again.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self._parts: list[np.ndarray] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take in the parts that other processes have added meanwhile."""
        if self._folder is None or not self._folder.is_dir():
            return
        for keys in sorted(self._folder.glob("*.keys")):
            if keys.stem in self._known:
                continue
            self._known.add(keys.stem)
            try:
                digests = keys.read_bytes()  # the folder may be deleted at any time
                vectors = np.load(keys.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError):
                continue
            if vectors.ndim == 2 and len(digests) == 32 * len(vectors):
                self._register(digests, vectors)

    def missing(self, sentences: list[str]) -> list[str]:
        """Those of `sentences` that have no vector yet, in order."""
        return [sentence for sentence in sentences if _digest(sentence) not in self._places]

    def add(self, sentences: list[str], vectors: np.ndarray) -> None:
        """Keep the vectors float32 [n, e] of `sentences`."""
        digests = b"".join(_digest(sentence) for sentence in sentences)
        if self._folder is not None:
            try:
                self._write(self._folder, digests, vectors)
            except FileNotFoundError:  # the folder was deleted meanwhile: once more, into a new one
                self._write(self._folder, digests, vectors)
        self._register(digests, vectors)

    def _write(self, folder: Path, digests: bytes, vectors: np.ndarray) -> None:
        """Add a part to the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        name = uuid.uuid4().hex
        self._known.add(name)
        draft = folder / f".{name}"
        with draft.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        os.replace(draft, folder / f"{name}.npy")
        draft.write_bytes(digests)
        os.replace(draft, folder / f"{name}.keys")

    def vectors(self, sentences: list[str]) -> np.ndarray:
        """Vectors float32 [n, e] of sentences none of which is missing (n at least 1)."""
        places = np.array([self._places[_digest(sentence)] for sentence in sentences])
        found = np.empty((len(sentences), self._parts[places[0, 0]].shape[1]), dtype=np.float32)
        for part in np.unique(places[:, 0]):
            here = places[:, 0] == part
            found[here] = self._parts[part][places[here, 1]]
        return found

    def _register(self, digests: bytes, vectors: np.ndarray) -> None:
        part = len(self._parts)
        self._parts.append(vectors)
        for row in range(len(vectors)):
            self._places.setdefault(digests[32 * row : 32 * row + 32], (part, row))


def _digest(sentence: str) -> bytes:
    return hashlib.sha256(sentence.encode("utf-8", "surrogatepass")).digest()
