"""What a service was started with: its record, and what its processes see of it."""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from flows.service.access import Access
from flows.service.environment import QUIET, SERVICE
from recalign.errors import UserError

CHECKOUT = Path(__file__).parents[2]
PORT = 4200
RECORD = "service.json"
INSIDE = ".prefect"  # the home, in the artifact root


@dataclass(frozen=True)
class Service:
    """What a service was started with; kept beside its logs for the next `up`."""

    home: str
    root: str
    port: int = PORT
    database: str = ""  # an SQLAlchemy URL, or empty for an SQLite file in `home`

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.url}/api"

    @property
    def access(self) -> Access:
        return Access(Path(self.home))

    def path(self, name: str) -> Path:
        """A file of this service."""
        return Path(self.home) / name

    def environment(self) -> dict[str, str]:
        """What its processes see; what the shell has set otherwise wins, but for what is ours."""
        ours = {
            "PREFECT_HOME": self.home,
            "PREFECT_API_URL": self.api,
            "PREFECT_API_AUTH_STRING": self.access.secret,
            "PREFECT_SERVER_API_AUTH_STRING": self.access.secret,
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{self.url},http://localhost:{self.port}",
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_UI_API_URL": self.api,
            "RECALIGN_ROOT": self.root,
            "RECALIGN_REPORTS": self.root,
            "PWD": str(CHECKOUT),  # prefect.yaml's pull step
            "PYTHONPATH": os.pathsep.join(
                [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
        }
        if self.database:
            ours["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = self.database
        return QUIET | SERVICE | os.environ | ours


def home_of(root: str, home: Path | None) -> Path:
    """The folder of the service's database, logs and record."""
    if home is None and "://" in root:
        raise UserError(
            f"--home: name a local folder for the service whose artifacts lie at {root}"
        )
    return Path(os.path.expanduser(home or Path(root) / INSIDE)).absolute()


def presets_folder(root: str, home: Path) -> Path:
    """Where a user's presets lie: in the artifact root, or at home where that is a URL."""
    return (home if "://" in root else Path(os.path.expanduser(root))) / "presets"


def remembered(home: Path) -> Service | None:
    """What the last `up` here was started with.

    The folder may have been moved or copied since, alone or with the root around it: then it is
    its own, and not that of the service which the record was written for.
    """
    try:
        told = Service(**json.loads((home / RECORD).read_text()))
        inside = Path(told.home) == Path(told.root) / INSIDE
    except (FileNotFoundError, TypeError, ValueError):
        return None
    return replace(told, home=str(home), root=str(home.parent) if inside else told.root)


def without_password(url: str) -> str:
    """The URL as it may be shown: of what stands before an @ or in a query, names only."""
    scheme, separator, rest = url.rpartition("://")
    user, at, place = rest.rpartition("@")  # a password may hold a question mark
    place, question, query = place.partition("?")
    user = re.sub(":.*", ":***", user)
    query = re.sub("=[^&]*", "=***", query)
    return f"{scheme}{separator}{user}{at}{place}{question}{query}"


def wanted_service(place: Path, root: str, port: int | None, database: str | None) -> Service:
    """The options, or else what the last `up` here had."""
    last = remembered(place) or Service(str(place), root)
    if "://" not in root:
        root = str(Path(root).absolute())
    wanted = replace(last, root=root, port=port or last.port)
    return wanted if database is None else replace(wanted, database=_checked(database))


def _checked(database: str) -> str:
    """The URL with the driver that Prefect needs; '' for SQLite."""
    if database == "sqlite":
        return ""
    scheme, separator, rest = database.partition("://")
    if scheme in ("postgres", "postgresql", "postgresql+asyncpg") and separator and rest:
        return f"postgresql+asyncpg://{rest}"
    raise UserError(
        f"--database {without_password(database)}: must be sqlite or postgresql://user@host/name"
    )
