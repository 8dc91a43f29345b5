"""What the tests of the server's writer ask, and how they read the texts."""

from recalign.config import SamplingConfig
from recalign.writer import Asked

SAMPLING = SamplingConfig(writer="openai", max_new_tokens=8)
ASKED = Asked(SAMPLING, 2, stream="reasonings fit")
USERS = range(20, 23)
PROMPTS = [f"Which genres? Titles: {title}" for title in ("Up", "Alien", "The Matrix")]


def texts_of(writer, prompts=PROMPTS, asked=ASKED):
    """All texts, by user and number of the sample."""
    written = [one for some in writer.write(prompts, USERS[: len(prompts)], asked) for one in some]
    return {(one.user, one.sample): one for one in written}


def greedy(texts):
    """The greedy text of each user."""
    return {user: one.text for (user, sample), one in texts.items() if sample == -1}
