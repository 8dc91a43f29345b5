"""Over `transformers serve` nothing of the model's own generation_config.json shapes a text."""

import shutil
from dataclasses import replace

import pytest

from tests.chat_server.asking import texts_of
from tests.chat_server.conftest import add_habits

MANY = list(range(20, 300))  # tokens
HABITS = {
    "repetition_penalty": 1.8, "encoder_repetition_penalty": 0.5, "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1, "min_p": 0.99, "typical_p": 0.01, "epsilon_cutoff": 0.5,
    "eta_cutoff": 0.99, "guidance_scale": 4.0, "num_beams": 3, "top_k": 1, "max_time": 1e-6,
    "exponential_decay_length_penalty": [0, 50.0], "min_new_tokens": 8, "min_length": 900,
    "num_return_sequences": 2, "token_healing": True,
    "suppress_tokens": MANY, "begin_suppress_tokens": MANY,
    "bad_words_ids": [[token] for token in MANY],
    "sequence_bias": [[[token], -50.0] for token in MANY],
}  # fmt: skip


@pytest.mark.slow
def test_no_habit_of_the_served_model_changes_a_text(open_writer, llm_folder, unweighted, tmp_path):
    ends = [*unweighted.eos_ids, *range(10, 300, 4)]  # so that texts end before their limit
    early = replace(unweighted, eos_ids=ends)

    def texts_with(name, value):
        folder = shutil.copytree(llm_folder, tmp_path / name)
        add_habits(folder, **{"repetition_penalty": 1.0, name: value})
        return texts_of(open_writer(str(folder), local=early, requests=1))

    plain = texts_with("do_sample", True)
    assert {one.finished for one in plain.values()} == {True, False}
    assert [name for name, value in HABITS.items() if texts_with(name, value) != plain] == []
