"""A key that no HTTP header can hold: refused by name, before any error could show it."""

import pytest

from recalign.chat_server.client import KEY, said
from recalign.errors import UserError

SECRET = "secret-4711"


@pytest.mark.parametrize(
    "key",
    [
        f"\u201c{SECRET}\u201d",  # curly quotes
        f"{SECRET}\u00a0",  # a no-break space
        f"{SECRET}\n",
        f"{SECRET}\r\n",
        f" {SECRET}",
        f"{SECRET[:6]}\t{SECRET[6:]}",
        f"{SECRET}\x7f",
        "\u0455ecret-4711",  # a Cyrillic letter
        "\n",
    ],
)
def test_a_key_with_something_copied_along_is_refused_and_never_shown(
    open_writer, monkeypatch, key
):
    monkeypatch.setenv(KEY, key)
    with pytest.raises(UserError, match=f"^{KEY}: the key holds white space") as caught:
        open_writer(retries=0)
    assert "4711" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["sk-Ab_9.~+/==", "!\"#$%&'()*:;<=>?@[\\]^`{|}"])
def test_any_key_of_printable_ascii_goes_to_the_server(open_writer, between, monkeypatch, key):
    between.key = key
    monkeypatch.setenv(KEY, key)
    assert open_writer().engine == "transformers"


def test_no_part_of_a_key_is_left_where_a_servers_words_are_cut_off(monkeypatch):
    monkeypatch.setenv(KEY, SECRET)
    assert said("a" * 295 + SECRET) == "a" * 295 + "..."
