"""Prompt templates: jinja2 texts that come with a package, or a user's own file."""

from collections.abc import Mapping
from pathlib import Path, PurePath

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from recalign.errors import UserError

ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def template_file(name: str, folder: Path) -> Path:
    """The file of the packaged template `name` in `folder`, or the file of that path.

    Raises UserError, naming it, when there is neither, or it cannot be read or parsed.
    """
    packaged = {file.stem: file for file in sorted(folder.glob("*.txt"))}
    path = packaged.get(name, Path(name))
    if not path.is_file():
        raise UserError(
            f"prompt template {name!r} is neither a packaged one ({', '.join(packaged)}) nor a file"
        )
    compile_template(name, read_template(path))
    return path


def template_read(files: Mapping[str, str]) -> tuple[str, str]:
    """File name and digest of the template among the files that a manifest has; "" where none is.

    No stage reads more than one.
    """
    found = [one for one in files.items() if one[0].startswith("template/")]
    return (PurePath(found[0][0]).name, found[0][1]) if found else ("", "")


def names_read(path: Path) -> set[str]:
    """The variables that the template of that file reads and does not set itself."""
    return meta.find_undeclared_variables(ENVIRONMENT.parse(read_template(path)))


def read_template(path: Path) -> str:
    """The text of a template; UserError when it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"prompt template {str(path)!r} cannot be read: {error}") from error


def compile_template(name: str, text: str) -> jinja2.Template:
    """The template, ready to render in a sandbox; UserError where it does not parse."""
    try:
        return ENVIRONMENT.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"prompt template {name}, line {error.lineno}: {error}") from error


def render_template(name: str, template: jinja2.Template, **values: object) -> str:
    """The prompt; it never ends in white space.

    Raises UserError where the template fails, as when it uses something that is not there, or
    renders nothing.
    """
    try:
        text = template.render(**values)
    except jinja2.TemplateError as error:
        raise UserError(f"prompt template {name}: {error}") from error
    except Exception as error:  # it is a program of the user's, and may divide by 0
        kind = type(error).__name__
        raise UserError(f"prompt template {name} cannot be rendered: {kind}: {error}") from error
    # A prompt that ends in a space is cut elsewhere by tokenizers than prompt + completion is.
    text = text.rstrip(" \t\r\n")
    if not text:
        raise UserError(f"prompt template {name} renders an empty prompt")
    return text
