"""Prompts that ask for the next title: a list to continue, or a question with candidates."""

from collections.abc import Sequence
from pathlib import Path

from recalign import templates
from recalign.artifacts.digests import file_digest
from recalign.config import TitlePromptConfig
from recalign.errors import UserError

_PACKAGED = Path(__file__).parent / "templates"


def template_file(name: str) -> Path:
    """The file of a packaged template or of that path; UserError when there is neither."""
    return templates.template_file(name, _PACKAGED)


def is_packaged(digest: str) -> bool:
    """Whether a packaged template has this content."""
    return any(file_digest(path) == digest for path in _PACKAGED.glob("*.txt"))


def same_template(places: Sequence[str], name: str, digest: str) -> Path:
    """The file of the template `name` of a finished run: the first of these places that has it.

    A place is a packaged template's name or a path. One of other content is passed over, for an
    LLM is only asked as it was taught to be. UserError where none is left.
    """
    packaged = {path.stem: path for path in _PACKAGED.glob("*.txt")}
    for place in places:
        path = packaged.get(place, Path(place))
        if path.is_file() and file_digest(path) == digest:
            return path
    raise UserError(
        f"{places[0]}: there is no such file, or it has other content than the run's template "
        f"{name}: name that file by --template"
    )


class TitlePrompts:
    """Writes prompts from item indices; `titles` is what `distinct_titles` gives.

    format history: the titles, one a line, oldest first, each closed by a line break; it has no
    candidates. format candidates: `config.template` over the titles `history` and `candidates`.
    Raises UserError where the template cannot be found or read, or does not parse.
    """

    def __init__(self, config: TitlePromptConfig, titles: list[str]) -> None:
        self.config, self.titles = config, titles
        if config.format == "candidates":
            text = templates.read_template(template_file(config.template))
            self.template = templates.compile_template(config.template, text)

    def text(self, history: Sequence[int], candidates: Sequence[int] = ()) -> str:
        """The prompt for the last `history_items` items of `history`, oldest first.

        Raises UserError where the template uses something that is not there.
        """
        shown = self._titles(history[max(0, len(history) - self.config.history_items) :])
        if self.config.format == "history":
            return "".join(f"{title}\n" for title in shown)
        return templates.render_template(
            self.config.template, self.template, history=shown, candidates=self._titles(candidates)
        )

    def _titles(self, items: Sequence[int]) -> list[str]:
        return [self.titles[int(item)] for item in items]
