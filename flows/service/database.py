"""Whether Prefect can open a SQLite database: not one of a newer Prefect or in a closed folder.

Its server would fail for minutes, with a traceback a try. One database for all projects of a user,
as Prefect has it by default, meets another version of Prefect sooner or later.
"""

import sqlite3
import tempfile
from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from recalign.errors import UserError

MIGRATIONS = "server/database/_migrations/versions/sqlite"


def check(database: Path, way_out: str) -> None:
    """UserError, with the way out, if its folder cannot be written or a newer Prefect made it."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=database.parent):
            pass
    except OSError as error:
        told = f"{database.parent}: Prefect cannot write its database there ({error.strerror})"
        raise UserError(f"{told}; {way_out}") from error
    if not database.is_file():
        return
    try:
        reading = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
        with closing(reading) as opened:
            (made_by,) = opened.execute("select version_num from alembic_version").fetchone()
    except (sqlite3.Error, TypeError):  # empty, busy or not Prefect's: its server says what it is
        return
    spec = find_spec("prefect")
    (package,) = (spec and spec.submodule_search_locations) or [""]
    if not any(made_by in file.name for file in (Path(package) / MIGRATIONS).glob("*.py")):
        older = f"a newer Prefect than {version('prefect')} has made this database"
        raise UserError(f"{database}: {older}; {way_out}")
