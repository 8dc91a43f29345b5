"""Who may talk to a service: its owner's secret, and tickets that log a browser in once."""

import base64
import hmac
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from recalign.artifacts.digests import write_atomically
from recalign.errors import UserError

OWN = {"service.json", "prefect.db"}  # of a service, or of Prefect: their folder is a home
BEFORE = {".lock", "presets"}  # what a first `up` that failed, or `deploy`, may have left at home
LOGIN = "/log-in-once"
TICKET_SECONDS = 600.0  # a ticket may lie about in a log: nobody logs in with it later


def write_private(path: Path, text: str) -> None:
    """Replace a file, as a whole, by one that its owner alone can read."""
    write_atomically(path, text, 0o600)


def narrow(home: Path) -> None:
    """Close a service's folder to others; UserError where that is not ours to do.

    A folder of somebody else's content, given by mistake, stays as it is: UserError.
    """
    here = {path.name for path in home.iterdir()}
    if here - BEFORE and not here & OWN:
        raise UserError(
            f"{home} holds other files and would be closed to others: name a folder for the service"
            f" alone, as --home {home / 'service'}"
        )
    if home.stat().st_mode & 0o077:
        try:
            home.chmod(0o700)
        except OSError as error:
            raise UserError(f"{home}: cannot be closed to others: {error.strerror}") from error


@dataclass(frozen=True)
class Access:
    """The secrets of the service at `home`, in files that its owner alone can read."""

    home: Path
    given: str = ""  # a secret from elsewhere, as a container's

    @property
    def secret(self) -> str:
        """What every request must carry, as "user:password"; made when it is first asked for."""
        if self.given:
            return self.given
        path = self.home / "secret"
        if not (path.exists() and path.read_text()):  # an empty one, of a full disk, opens nothing
            write_private(path, f"recalign:{secrets.token_urlsafe(32)}")
        return path.read_text()

    @property
    def authorization(self) -> str:
        """The header that a program sends."""
        return f"Basic {base64.b64encode(self.secret.encode()).decode()}"

    def pass_for(self, path: str) -> str:
        """What opens this path alone, made of the secret that it does not tell."""
        return hmac.new(self.secret.encode(), path.encode(), "sha256").hexdigest()

    def new_ticket(self) -> str:
        """A ticket for one login; an earlier one is worth nothing any more."""
        ticket = secrets.token_urlsafe(32)
        write_private(self.home / "ticket", ticket)
        return ticket

    def redeem(self, ticket: str) -> bool:
        """Whether this ticket is good; it is so once, and not for long."""
        path = self.home / "ticket"
        try:
            is_fresh = time.time() - path.stat().st_mtime < TICKET_SECONDS
            good = is_fresh and hmac.compare_digest(path.read_text().encode(), ticket.encode())
            if good:
                path.unlink()
        except FileNotFoundError:
            return False
        return good
