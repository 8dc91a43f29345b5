"""The data set that a history of refreshes recommends from, and what is said where it changes."""

import pytest

from recalign.artifacts.identity import Identity
from recalign.artifacts.refreshes import REFRESHES, Refreshes, refreshed_from
from recalign.artifacts.store import Store
from recalign.chain import data_set
from recalign.config import InteractionsConfig
from recalign.errors import UserError


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


def made(store, stage, config, inputs=None, files=None):
    """The reference of an artifact with this manifest, and without files."""
    inputs = inputs or {}
    upstream = {name: one.fingerprint for name, one in inputs.items()}
    identity = Identity(stage, 1, config.identity(), upstream, files or {})
    return store.commit(store.draft(identity, inputs)).reference


@pytest.mark.parametrize(
    ("settings", "files", "told"),
    [
        ({"source": "ml-1m", "min_rating": 4}, ["raw/ratings.dat"], "ml-1m"),
        ({"source": "amazon"}, ["raw/a.gz", "raw/b.gz"], "amazon Beauty 2014"),
        ({"source": "files", "files": {"items": "b.csv"}}, ["raw/z.csv", "raw/b.csv"], "z.csv"),
        ({}, [], "synthetic"),
        ({"synthetic": {"seed": 7, "n_users": 60}}, [], "synthetic, n_users 60, seed 7"),
    ],
)
def test_a_data_set_has_the_same_name_below_newer_interactions(store, settings, files, told):
    config = InteractionsConfig.model_validate(settings)
    world = made(store, "interactions", config, files=dict.fromkeys(files, "0" * 64))
    newer = {"newer/n.csv": "1" * 64}
    histories = made(store, "histories", config, {"interactions": world}, newer)
    assert (data_set(store, world), data_set(store, histories)) == (told, told)
    store.discard(world.stage, world.fingerprint)
    assert data_set(store, histories) == ""


def test_another_data_set_is_refused_and_one_that_is_not_known_changes_nothing(store):
    begun = refreshed_from(Refreshes(name="home"), "ml-1m", "the newest report")
    assert begun.source == "ml-1m"
    assert refreshed_from(begun, "ml-1m", "report/a") == begun
    assert refreshed_from(begun, "", "report/a") == begun
    wanted = (
        "refresh home recommends from ml-1m, but the newest report is of synthetic: "
        "name a run or series of ml-1m, or another history"
    )
    with pytest.raises(UserError) as told:
        refreshed_from(begun, "synthetic", "the newest report")
    assert str(told.value) == wanted
    REFRESHES.write(store, begun)
    assert REFRESHES.read(store, "home") == begun
