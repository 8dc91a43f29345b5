"""Pool, deployments and automations at a server that something else has started (compose.yaml).

`python -m flows.service.register` does what `recalign up` does after its server has started. It
reads PREFECT_API_URL, PREFECT_API_AUTH_STRING, PREFECT_HOME and RECALIGN_ROOT.
"""

import os
from pathlib import Path

from flows.service.prefect_api import prepare
from flows.service.record import CHECKOUT


def main() -> None:
    """Register, and tell what could not be."""
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    told = prepare(os.environ["PREFECT_API_URL"], dict(os.environ), CHECKOUT, home / "deploy.log")
    print(told, end="")


if __name__ == "__main__":
    main()
