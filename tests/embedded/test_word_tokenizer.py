"""The embedded policy's tokenizer: words and full stops, back and forth."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from recalign.embedded.word_tokenizer import build_tokenizer

PROMPTS = [
    "War Marlow 1970s dark ; Comedy Ana 1990s light =",
    "War Ana 1970s dark =",
    "War St.-John 1990s dark =",
]
TEXTS = [
    "Enjoys War and Comedy. Favours 1970s works. Mood dark. Follows Marlow.",
    "Likes category Hair-Care and Tools.",
]


@pytest.mark.parametrize("text", [*TEXTS, *PROMPTS, "Enjoys War."])
def test_decoding_gives_the_text_back(text: str) -> None:
    tokenizer = build_tokenizer(PROMPTS, TEXTS, max_values=200)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_full_stop_is_a_token_and_nothing_is_added_around_a_text() -> None:
    tokenizer = build_tokenizer(PROMPTS, TEXTS, max_values=200)
    expected = "Enjoys War and Comedy . Favours 1970s works . Mood dark . Follows Marlow ."
    assert " ".join(tokenizer.tokenize(TEXTS[0])) == expected
    assert tokenizer.convert_ids_to_tokens(tokenizer("War ; St.-John =")["input_ids"]) == (
        ["War", ";", "St.-John", "="]
    )
    assert tokenizer.chat_template is None


def test_prompt_and_completion_together_are_their_tokens_in_a_row_with_or_without_a_space() -> None:
    tokenizer = build_tokenizer(PROMPTS, TEXTS, max_values=200)
    apart = tokenizer(PROMPTS[0])["input_ids"] + tokenizer(TEXTS[0])["input_ids"]
    assert tokenizer(f"{PROMPTS[0]} {TEXTS[0]}")["input_ids"] == apart
    assert tokenizer(f"{PROMPTS[0]}{TEXTS[0]}")["input_ids"] == apart


def test_the_most_frequent_values_of_each_attribute_get_tokens_and_the_others_are_other() -> None:
    creators = [f"Name{i:02d}" for i in range(30) for _ in range(30 - i)]
    prompts = [f"War {name} 1970s dark =" for name in creators]
    texts = [f"Enjoys War. Follows {name}." for name in creators[:100]]
    tokenizer = build_tokenizer(prompts, texts, max_values=10)
    known = {word for word in tokenizer.get_vocab() if word.startswith("Name")}
    assert known == {f"Name{i:02d}" for i in range(10)}
    text = "Enjoys War. Follows Name25."
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == (
        "Enjoys War. Follows other."
    )


def test_free_text_is_one_attribute_with_ten_times_as_many_words() -> None:
    words = [f"w{i:03d}" for i in range(150)]
    prompts = [f"A user has seen {' '.join(words[:n])}. What do they like?" for n in range(1, 151)]
    tokenizer = build_tokenizer(prompts, ["They like w000 most of all."], max_values=10)
    known = {word for word in tokenizer.get_vocab() if word[0] == "w" and word[1:].isdigit()}
    assert "w000" in known
    assert "w149" not in known
    assert 80 < len(known) <= 100


def test_the_saved_tokenizer_loads_as_any_other_and_does_the_same(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(PROMPTS, TEXTS, max_values=200)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = f"{PROMPTS[0]} {TEXTS[0]} Unseen."
    ids = tokenizer(text)["input_ids"]
    assert loaded(text)["input_ids"] == ids
    assert loaded.decode(ids, skip_special_tokens=True) == text.replace("Unseen", "other")
    special = {loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id, loaded.unk_token_id}
    assert len(special) == 4
    assert None not in special
    assert loaded.decode(
        [*ids, loaded.eos_token_id, loaded.pad_token_id], skip_special_tokens=True
    ) == (loaded.decode(ids))
