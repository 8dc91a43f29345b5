"""Derived seeds and their generators."""

import numpy as np

from recalign.seeding import Streams, derive_seed, stream


def test_many_streams_are_equal_to_those_made_one_by_one():
    users = np.array([0, 1, 7, 159_999, 2**40])
    many = Streams(3, "candidates", "uniform", last=users)
    for generator, user in zip(many[:], users, strict=True):
        one = stream(3, "candidates", "uniform", int(user))
        assert generator.random(50).tolist() == one.random(50).tolist()
        assert generator.gumbel(size=9).tolist() == one.gumbel(size=9).tolist()
    assert many[np.array([3])][0].random() == stream(3, "candidates", "uniform", 159_999).random()


def test_seeds_of_any_size_are_mixed_as_numpy_mixes_them():
    from recalign import seeding

    for seed in (0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1):
        expected = np.random.SeedSequence(seed).generate_state(4, np.uint64)
        assert seeding._mixed(np.array([seed]))[0].tolist() == expected.tolist()


def test_a_stream_has_a_seed_of_its_own():
    assert (
        len(
            {
                derive_seed(seed, *names)
                for seed, *names in ((0, "a", "b"), (0, "ab"), (1, "a", "b"))
            }
        )
        == 3
    )
