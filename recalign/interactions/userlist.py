"""The users that someone asks for, as a file of ids."""

from pathlib import Path

import polars as pl

from recalign.errors import BadInputError
from recalign.interactions.cells import read_cells
from recalign.interactions.columns import ids
from recalign.progress import silent


def read_user_ids(path: Path, known: pl.Series | None = None) -> pl.Series:
    """The distinct ids, in their order, of a table with `user_id` or a text with one per line.

    A name that ends in .txt or has no ending is that of a text. known: the run's own ids; see
    `whole_numbers`.

    Raises BadInputError for a file that is not there, holds no id, or has no such column.
    """
    if not path.is_file():
        raise BadInputError(f"{path}: there is no such file of users")
    if path.suffix.lower() in (".txt", ""):
        try:
            lines = [line.strip() for line in path.read_text("utf-8-sig").split("\n")]
        except UnicodeDecodeError as error:
            raise BadInputError(f"{path}: is not UTF-8 text; save it as UTF-8") from error
        found = pl.Series("user_id", [line for line in lines if line], dtype=pl.String)
        if found.is_empty():
            raise BadInputError(f"{path}: holds no user id; write one per line")
    else:
        advice = "name the column user_id, or write one id per line into a .txt"
        cells, origin = read_cells(path, {"user_id": "user_id"}, silent, advice)
        found = ids(cells["user_id"], cells["row"], origin, "user_id", known)
    return found.unique(maintain_order=True)
