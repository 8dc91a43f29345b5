"""The service on one machine: Prefect's server, a worker and the deployments, up and down."""

import json
import os
import shlex
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import typer
from filelock import AcquireReturnProxy, FileLock, Timeout

from flows.service import database, processes
from flows.service.access import LOGIN, narrow, write_private
from flows.service.processes import Member
from flows.service.record import (
    CHECKOUT,
    RECORD,
    Service,
    home_of,
    presets_folder,
    remembered,
    wanted_service,
    without_password,
)
from recalign.errors import UserError
from recalign.report.terminal import print_table

POOL = "recalign"
START_SECONDS = 240  # a first start writes the database's tables
STOP_SECONDS = 20.0  # before a process that was asked to end is killed


def up(root: str, home: Path | None, port: int | None, database: str | None) -> None:
    """Start what does not run yet; a second call is refused."""
    place = home_of(root, home)
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(f"cannot create {place}: {error.strerror}") from error
    if not (CHECKOUT / "prefect.yaml").is_file():
        raise UserError(
            f"no prefect.yaml in {CHECKOUT}: install the checkout with `pip install -e .`"
        )
    narrow(place)
    with _alone(place):
        service = wanted_service(place, root, port, database)
        running = _parts(place)
        if running and service != remembered(place):
            raise UserError(f"{_pids(running)} runs with other settings; `recalign down` first")
        if {"server", "worker"} <= running.keys():
            raise UserError(
                f"already up: {service.url}, {_pids(running)}; `recalign down` stops it"
            )
        record = service.path(RECORD)
        before = record.read_text() if record.is_file() else ""
        write_private(record, json.dumps(asdict(service), indent=1))
        try:
            _bring_up(service, running)
        except BaseException:
            if not running:
                _take_down(service)
                write_private(record, before)  # what it failed by is not for the next `up`
            raise
        show(service)
        print_login(service)


def deploy(root: str, home: Path | None, file: Path) -> None:
    """Keep a preset with the root, and make it deployments of the service if that runs."""
    from flows.service import prefect_api

    place = home_of(root, home)
    service = remembered(place)
    folder = presets_folder(service.root if service else root, place)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{file.stem}.toml"
    if kept.resolve() != file.resolve():
        if kept.is_file() and not kept.is_symlink():
            raise UserError(f"{file}: {kept} is another preset of this name; rename one of them")
        if kept.is_file():  # else the file that the link led to is gone, or has another name by now
            raise UserError(
                f"{file}: {kept.resolve()} is deployed by this name already, and its schedules "
                f"would run this preset: rename one of them, or delete the link {kept} first"
            )
        kept.unlink(missing_ok=True)
        kept.symlink_to(file.resolve())
    if service is None or "server" not in _parts(place):
        typer.echo(f"{kept} becomes deployments at the next `recalign up`")
        return
    told = prefect_api.deploy(service.environment(), CHECKOUT, service.path("deploy.log"))
    typer.echo(f"{told}{service.url}/v2/deployments shows what {file.stem} became")


def down(root: str, home: Path | None) -> None:
    """Stop the worker, its runs and the server, in this order."""
    place = home_of(root, home)
    if not place.is_dir():
        raise UserError(f"no service was ever started at {place}")
    with _alone(place):
        service = remembered(place) or Service(str(place), root)
        for line in _take_down(service) or ["nothing runs here"]:
            typer.echo(line)


def status(root: str, home: Path | None) -> None:
    """Tell what runs where; exit code 1 when the server or the worker does not."""
    place = home_of(root, home)
    service = remembered(place)
    if service is None:
        raise UserError(f"no service was ever started at {place}; `recalign up` starts one")
    show(service)
    if not {"server", "worker"} <= _parts(place).keys():
        raise typer.Exit(1)


def show(service: Service) -> None:
    """A line per part and per flow run at work."""
    place = Path(service.home)
    running = _parts(place)
    runs = [m for m in processes.members(place) if m.flow_run and m.leads]
    rows = [
        ["server", service.url, _pid(running.get("server")), str(place / "server.log")],
        ["worker", f"pool {POOL}", _pid(running.get("worker")), str(place / "worker.log")],
        *(["run", run.flow_run, _pid(run), ""] for run in runs),
        ["artifacts", service.root, "", ""],
        ["database", without_password(service.database) or "SQLite", "", ""],
    ]
    print_table(["", "where", "process", "log"], rows)
    if "server" in running:
        secret = f"PREFECT_API_AUTH_STRING=$(cat {shlex.quote(str(place / 'secret'))})"
        told = f"export PREFECT_API_URL={service.api} {secret}"
        typer.echo(f"runs of the command line appear there after: {told}")


def print_login(service: Service) -> None:
    """An address that logs a browser in, once."""
    typer.echo(f"log in, once, at: {service.url}{LOGIN}?ticket={service.access.new_ticket()}")


def open_ui(root: str, home: Path | None) -> None:
    """Print a new address that logs a browser in, once."""
    service = remembered(home_of(root, home))
    if service is None or "server" not in _parts(Path(service.home)):
        raise UserError("no service runs here; `recalign up` starts one")
    print_login(service)


def log_in(root: str) -> None:
    """Let this process's Prefect in where the shell names the service of this root."""
    service = None if "://" in root else remembered(home_of(root, None))
    if service and os.environ.get("PREFECT_API_URL", "").rstrip("/") == service.api:
        os.environ.setdefault("PREFECT_API_AUTH_STRING", service.access.secret)
        os.environ["RECALIGN_REPORTS"] = service.root


def _alone(place: Path) -> AcquireReturnProxy:
    """A lock against a second `up` or `down` here, dropped by the kernel with its process."""
    try:
        return FileLock(place / ".lock").acquire(timeout=0)
    except Timeout:
        raise UserError(f"another `recalign up` or `down` is at work at {place}") from None


def _parts(place: Path) -> dict[str, Member]:
    """The server and the worker, as far as they run."""
    return {m.part: m for m in processes.members(place) if m.leads and not m.flow_run}


def _pid(member: Member | None) -> str:
    return str(member.process.pid) if member else "not running"


def _pids(parts: dict[str, Member]) -> str:
    return ", ".join(f"{name} {member.process.pid}" for name, member in sorted(parts.items()))


def _bring_up(service: Service, running: dict[str, Member]) -> None:
    from flows.service import prefect_api

    if "server" not in running:
        typer.echo(f"waiting for the server to answer at {service.url} ...")
        _start_server(service)
        environment, log = service.environment(), service.path("deploy.log")
        typer.echo("waiting for the deployments to be registered ...")
        typer.echo(prefect_api.prepare(service.api, environment, CHECKOUT, log), nl=False)
    if "worker" not in running:
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL,
                  "--type", "process", "--name", f"recalign on {socket.gethostname()}"]  # fmt: skip
        processes.start(Path(service.home), "worker", worker, service.environment(), CHECKOUT)


def _start_server(service: Service) -> None:
    from flows.service import prefect_api

    home, log = Path(service.home), service.path("server.log")
    if not service.database:
        database.check(home / "prefect.db", "install that again, or name another --home")
    with _listening(service.port) as listener:
        number = listener.fileno()
        command = [sys.executable, "-m", "flows.service.server", str(service.port), str(number)]
        environment = service.environment()
        server = processes.start(home, "server", command, environment, CHECKOUT, [number])
    deadline = time.monotonic() + START_SECONDS
    while not prefect_api.is_healthy(service.api):
        if not server.is_running() or server.status() == psutil.STATUS_ZOMBIE:
            raise UserError(f"the server ended: {_last_line(log)} (all of it: {log})")
        if time.monotonic() > deadline:
            raise UserError(f"the server did not answer within {START_SECONDS} s; see {log}")
        time.sleep(0.3)


def _listening(port: int) -> socket.socket:
    """What the server will listen at, taken before it starts: nobody else answers in its place.

    Another user of this machine who did would be sent the service's secret.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UserError(f"--port {port}: {error.strerror}; name a free one") from error
    return listener


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line]
    return (told or lines or ["it said nothing"])[-1].strip()


def _take_down(service: Service) -> list[str]:
    """Stop everything; the worker goes first, so that nothing new starts, the server last."""
    from flows.service import prefect_api

    place, told = Path(service.home), []
    runs = [m for m in processes.members(place) if m.flow_run]
    workers = [m for m in processes.members(place) if m.part == "worker" and not m.flow_run]
    processes.kill(m.process for m in workers)
    told += [f"worker {m.process.pid} stopped" for m in workers if m.leads]
    # Only the run itself is asked: it reports its end, then its helpers go with it.
    runs += [m for m in processes.members(place) if m.flow_run]
    processes.stop({m.process for m in runs if m.leads}, STOP_SECONDS)
    processes.kill(m.process for m in processes.members(place) if m.part == "worker")
    why = "stopped by `recalign down`; Retry continues it"
    for run in sorted({m.flow_run for m in runs}):
        prefect_api.crash(service.api, service.access.secret, run, why)
        told.append(f"run {run} stopped; Retry continues it")
    servers = [m for m in processes.members(place) if m.part == "server"]
    processes.stop([m.process for m in servers], STOP_SECONDS)
    told += [f"server {m.process.pid} stopped" for m in servers if m.leads]
    processes.kill(m.process for m in processes.members(place))
    return told
