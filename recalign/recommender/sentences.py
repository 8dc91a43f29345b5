"""Sentences of a text, and a cache of their vectors that several processes may write at once."""

import hashlib
import os
import re
import uuid
from pathlib import Path

import numpy as np

from recalign.policy import WIDE_CLOSING, WIDE_ENDS

MAX_WORDS = 120
"""Longer sentences are cut. What is still too long for an encoder, the encoder itself halves."""

ENCODER_WEIGHTS = "encoder_weights"
"""Figure of a recommender: the digest of the encoder's weights that it was fitted with."""

SMALL = 2**20
"""Bytes. A part of no more is read whole: what is mapped into memory holds a file open."""
MOST_SMALL = 64
"""So many small parts are left as they are; one more, and all become one."""

_SENTENCE_END = re.compile(
    rf"(?<=[.!?;])\s+|\s*\n+\s*|(?<=[{WIDE_ENDS}；])(?![{WIDE_ENDS}；{WIDE_CLOSING}])"
)
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
    """Vectors by sentence; with a folder, on disk as parts, none of which is ever changed.

    A part is a pair of files, `<name>.npy` (vectors, float32 [n, e]) and `<name>.keys` (SHA-256
    digests, n times 32 bytes). Both are put in place by an atomic rename, the keys last, under a
    name no other process uses: readers never see half a part and writers never wait. Small parts
    are deleted once all of them are in place as one part, and never half of their sentences with
    them: who misses one looks again. Parts that are damaged are left out, so their sentences are
    encoded again.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: set[str] = set()
        self._parts: list[np.ndarray] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._small: dict[str, tuple[bytes, np.ndarray]] = {}  # parts on disk: digests and vectors
        self.refresh()

    def refresh(self) -> None:
        """Take in the parts that other processes have added meanwhile."""
        if self._folder is not None:
            while self._take_in(self._folder):
                pass  # what vanished may stand in a new part, which was there before it went

    def _take_in(self, folder: Path) -> bool:
        """Register the new parts; whether any of them has vanished since it was listed."""
        vanished = False
        for keys in sorted(folder.glob("*.keys")) if folder.is_dir() else ():
            if keys.stem in self._known:
                continue
            self._known.add(keys.stem)
            path = keys.with_suffix(".npy")
            try:
                digests = keys.read_bytes()
                small = path.stat().st_size <= SMALL
                vectors = np.load(path, mmap_mode=None if small else "r", allow_pickle=False)
            except FileNotFoundError:  # merged, or the whole folder was deleted
                vanished = True
                continue
            except (ValueError, EOFError):
                continue
            if vectors.ndim == 2 and len(digests) == 32 * len(vectors):
                self._register(digests, vectors)
                if small:
                    self._small[keys.stem] = digests, vectors
        return vanished

    def missing(self, sentences: list[str]) -> list[str]:
        """Those of `sentences` that have no vector yet, in order."""
        return [sentence for sentence in sentences if _digest(sentence) not in self._places]

    def add(self, sentences: list[str], vectors: np.ndarray) -> None:
        """Keep the vectors float32 [n, e] of `sentences`."""
        digests = b"".join(_digest(sentence) for sentence in sentences)
        if self._folder is not None:
            name = self._write(self._folder, digests, vectors)
            if vectors.nbytes <= SMALL:
                self._small[name] = digests, vectors
            if len(self._small) > MOST_SMALL:
                self._merge(self._folder)
        self._register(digests, vectors)

    def _merge(self, folder: Path) -> None:
        """Make one part of all small ones, and delete these: whoever has them has read them whole.

        Another process may do the same at the same time: a sentence stands in two parts then.
        """
        rows: dict[bytes, np.ndarray] = {}
        for digests, vectors in self._small.values():
            for digest, vector in zip(_split(digests), vectors, strict=True):
                rows.setdefault(digest, vector)
        merged = b"".join(rows), np.stack(list(rows.values()))
        name = self._write(folder, *merged)
        for old in self._small:
            (folder / f"{old}.keys").unlink(missing_ok=True)  # first: it names the part
            (folder / f"{old}.npy").unlink(missing_ok=True)
        self._small = {name: merged} if merged[1].nbytes <= SMALL else {}

    def _write(self, folder: Path, digests: bytes, vectors: np.ndarray) -> str:
        """Add a part to the folder; its name."""
        name = uuid.uuid4().hex
        self._known.add(name)
        try:
            _put(folder, name, digests, vectors)
        except FileNotFoundError:  # the folder was deleted meanwhile: once more, into a new one
            _put(folder, name, digests, vectors)
        return name

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
        for row, digest in enumerate(_split(digests)):
            self._places.setdefault(digest, (part, row))


def _put(folder: Path, name: str, digests: bytes, vectors: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}"
    with draft.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)
    os.replace(draft, folder / f"{name}.npy")
    draft.write_bytes(digests)
    os.replace(draft, folder / f"{name}.keys")


def _split(digests: bytes) -> list[bytes]:
    return [digests[start : start + 32] for start in range(0, len(digests), 32)]


def _digest(sentence: str) -> bytes:
    return hashlib.sha256(sentence.encode("utf-8", "surrogatepass")).digest()
