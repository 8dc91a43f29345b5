"""A copy of what another machine has computed anew since is told by nobody, from the first look."""

import pytest

from recalign.artifacts.identity import Identity
from recalign.artifacts.lineage import lineage
from recalign.artifacts.lookup import resolve
from recalign.artifacts.manifest import fingerprints
from recalign.artifacts.remote import Remote
from recalign.artifacts.roots import RemoteStore
from recalign.chain import doubt_of_run, finished_run, title_chain_of_run


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine("a"): the artifacts at one URL as a new process of that machine sees them."""

    def see(name):
        monkeypatch.setenv("RECALIGN_CACHE", str(tmp_path / name))
        return RemoteStore((tmp_path / "url").as_uri())

    return see


def commit(store, stage, text, config, inputs=None, validation=None):
    inputs = inputs or {}
    draft = store.draft(Identity(stage, 1, config, fingerprints(inputs), {}), inputs)
    draft.path("table.txt").write_text(text)
    if validation:
        draft.tell({"validation": validation})
    return store.commit(draft).reference


ROWS = {
    "rows": [
        {"label": "sft", "kind": "sft"},
        {"label": "beta 0.1", "kind": "aligned"},
    ]
}
JUDGED = {"likelihood": "sum", "beam": 2}


def a_run(store, text):
    """A run of RosePO whose LLM wrote `text`: its LLM, row and report."""
    llm = commit(store, "sft", text, {"a": 1})
    row = commit(store, "recommendations", text, JUDGED, {"policy": llm})
    inputs = {"interactions": llm, "oracle": llm, "row_0": row, "row_1": row}
    scores = {"sft": 0.1, "beta 0.1": 0.2}
    return llm, row, commit(store, "comparison", "page", ROWS, inputs, scores)


@pytest.fixture
def outdated(machine):
    """What two machines made of one run; the first has copies of its own content of it."""
    old = a_run(machine("a"), "old")
    other = machine("b")
    for made in old:
        other.discard(made.stage, made.fingerprint)
    return old, a_run(other, "new")


def test_what_a_finished_run_stands_on_is_read_at_the_url(machine, outdated):
    _, (llm, _, report) = outdated
    run = finished_run(machine("a"))
    assert title_chain_of_run(machine("a"), run).policy == llm
    assert doubt_of_run(machine("a"), run) == ""
    assert {made.reference for made in lineage(machine("a"), [run]).values()} == set(outdated[1])
    assert run.reference == report


def test_an_artifact_named_by_hand_opens_at_the_first_try(machine, outdated):
    (old, *_), (new, *_) = outdated
    assert old.digest != new.digest
    store = machine("a")
    found = resolve(store, new.name)
    assert found.reference == new
    assert store.open(found.reference).path("table.txt").read_text() == "new"
    assert machine("a").manifest(new.stage, new.fingerprint) == found


def test_a_copy_that_never_was_at_the_url_is_told_as_it_is(machine, outdated):
    (old, *_), _ = outdated
    store = machine("a")
    (store.folder(old.stage, old.fingerprint) / ".published").unlink()
    assert resolve(store, old.name).reference == old
    assert store.manifest(old.stage, old.fingerprint).reference == old


def test_a_copy_of_what_is_gone_from_the_url_is_told(machine, outdated):
    (old, *_), (new, *_) = outdated
    machine("b").discard(new.stage, new.fingerprint)
    assert resolve(machine("a"), old.name).reference == old
    assert machine("a").manifest(old.stage, old.fingerprint).reference == old


def test_the_newest_run_is_found_by_the_manifests_of_reports_alone(machine, outdated, monkeypatch):
    read, asked = Remote.read, []

    def noted(remote, name):
        asked.append(name)
        return read(remote, name)

    monkeypatch.setattr(Remote, "read", noted)
    report = finished_run(machine("a")).reference
    assert asked == [f"comparison/{report.fingerprint}/manifest.json"]


def test_what_was_compared_with_the_url_is_not_asked_for_again(machine, monkeypatch):
    made = commit(machine("a"), "sft", "text", {"a": 1})
    store = machine("a")
    store.open(made)
    monkeypatch.setattr(Remote, "read", lambda remote, name: pytest.fail(f"asked for {name}"))
    assert store.manifest(made.stage, made.fingerprint).reference == made
    assert [found.reference for found in store.manifests("sft")] == [made]
