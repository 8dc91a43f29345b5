"""Names from a manifest, an archive or a URL, checked before any of them becomes a path."""

from pathlib import PureWindowsPath
from typing import Annotated

from pydantic import AfterValidator


def is_inside(name: str) -> bool:
    """Whether a file of this name lies inside the folder that the name is joined to.

    False for absolute names, `..`, empty and hidden parts, backslashes, drives and what cannot be
    printed (NUL, line ends): on every system alike, whichever one wrote the name.
    """
    parts = name.split("/")
    whole = all(part and not part.startswith(".") for part in parts)
    return whole and name.isprintable() and "\\" not in name and not PureWindowsPath(name).drive


def _inside(name: str) -> str:
    if not is_inside(name):
        raise ValueError(f"{name!r} is no name of a file inside a folder")
    return name


def _one_part(name: str) -> str:
    if "/" in _inside(name):
        raise ValueError(f"{name!r} is no name of one folder")
    return name


FileName = Annotated[str, AfterValidator(_inside)]
"""A file of an artifact, as "model/weights.safetensors"."""

FolderName = Annotated[str, AfterValidator(_one_part)]
"""A stage or a fingerprint: a folder under the root."""
