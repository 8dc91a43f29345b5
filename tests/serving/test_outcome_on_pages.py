"""What newer interactions call their items is text on a run's page, whatever it looks like."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.context import FlowRunContext

from flows.serving import nightly, recommend
from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Reference
from recalign.artifacts.refreshes import Refresh, Refreshes
from recalign.artifacts.store import Store

BAD = ["<img src=x onerror=alert(1)>", "[click](http://evil)", "# a | *b*"]
SHOWN = [r"\<img src=x onerror=alert(1)\>", r"\[click\](http://evil)", r"\# a \| \*b\*"]


@pytest.fixture
def served(tmp_path):
    """A store, and the manifest of a table over newer rows of items with such ids."""
    store = Store(tmp_path / "artifacts")
    draft = store.draft(Identity("histories", 1, {}, {}, {"newer/n.csv": "0" * 64}), {})
    draft.tell({"newer_rows": 3, "new_users": 0, "unknown_items": 3, "unknown_items_named": BAD})
    world = store.commit(draft).reference
    identity = Identity("serving", 1, {}, {"histories": world.fingerprint}, {})
    draft = store.draft(identity, {"histories": world})
    draft.tell({"users": 1, "users_listed": 1})
    return store, store.commit(draft).manifest


def refreshed():
    one, now = Reference(stage="serving", fingerprint="a" * 32), datetime.now(UTC)
    counts = dict.fromkeys(("users", "users_listed", "texts_written", "texts_kept"), 1)
    made = {"serving": one, "histories": one, "policy": one, "output": "r.csv", "run": "r"}
    return Refreshes(name="home", refreshes=[Refresh(**made, **counts, started=now, finished=now)])


def test_ids_are_as_they_are_in_the_terminal_and_plain_text_in_markdown(served, monkeypatch):
    store, made = served
    told = recommend.in_words(store, made, Path("my_recs.csv"))
    assert told.endswith(f"; 3 unknown items: {', '.join(BAD)}")
    pages = []
    monkeypatch.setattr(recommend, "create_markdown_artifact", lambda **page: pages.append(page))
    monkeypatch.setattr(nightly, "create_table_artifact", lambda **page: pages.append(page))
    recommend.show(told)
    with FlowRunContext.model_construct():  # type: ignore[call-arg]  # only its being there counts
        nightly.show(refreshed(), told)
    for text in (pages[0]["markdown"], pages[1]["description"]):
        assert text.endswith(f"; 3 unknown items: {', '.join(SHOWN)}")
        assert r"recommendations in my\_recs.csv;" in text
