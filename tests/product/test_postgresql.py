"""The service on a real PostgreSQL server, started here from the system's own binaries."""

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.product.running_service import RunningService, free_port

pytestmark = pytest.mark.slow


def binary(name):
    """The path of a PostgreSQL program; Debian keeps them out of PATH."""
    places = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    found = shutil.which(name) or (places[-1] if places else None)
    if found is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("no PostgreSQL here: `apt-get install postgresql` for this test")
    return found


@pytest.fixture(scope="module")
def postgresql():
    """The URL of a server on an empty folder; PostgreSQL refuses to run as root."""
    program, initdb = binary("postgres"), binary("initdb")
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = None if os.geteuid() else ("postgres" if "postgres" in names else "nobody")
    folder = Path(tempfile.mkdtemp(prefix="recalign-postgresql-"))
    if user:
        shutil.chown(folder, user)
    data, port = folder / "data", free_port()
    subprocess.run(
        [initdb, "--pgdata", str(data), "--username", "recalign", "--auth", "trust",
         "--no-sync", "--encoding", "UTF8", "--locale", "C"],
        check=True, user=user, cwd=folder, capture_output=True, timeout=300,
    )  # fmt: skip
    server = subprocess.Popen(
        [program, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder),
         "-c", "fsync=off"],
        user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"postgresql://recalign@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()  # waits for clients, and there are none left
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(30)
        shutil.rmtree(folder)


def query(url, sql):
    """Rows of a query, asked of the database itself."""
    import asyncio

    import asyncpg

    async def ask():
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_runs_are_kept_in_postgresql_and_a_restart_finds_them(postgresql, tmp_path):
    service = RunningService(tmp_path / "artifacts", free_port())
    try:
        assert "postgresql+asyncpg://recalign@127.0.0.1" in service.up("--database", postgresql)
        run = service.start_run(stop_after="splits")
        assert service.wait_for_end(run) == ("COMPLETED", "Stopped after splits, as asked")
        rows = query(postgresql, "select id::text, state_type::text from flow_run")
        assert rows == [(run, "COMPLETED")]
        stages = query(postgresql, "select name, state_type::text from task_run")
        assert {("interactions", "COMPLETED"), ("splits", "COMPLETED")} <= set(stages)
        assert not list(service.home.glob("*.db"))
        service.leader("server").kill()
        service.up()  # the database is remembered
        assert service.state(run)[0] == "COMPLETED"
    finally:
        service("down")
    assert service.all_processes() == []


def test_a_database_that_does_not_answer_is_told(tmp_path):
    service = RunningService(tmp_path / "artifacts", free_port())
    url = f"postgresql://ann:secret@127.0.0.1:{free_port()}/none"
    done = service("up", "--port", str(service.port), "--database", url)
    assert done.returncode == 2
    assert "the server ended: " in done.stderr
    assert "secret" not in done.stderr
    assert service.all_processes() == []


def test_other_databases_are_refused(tmp_path):
    done = RunningService(tmp_path, 1)("up", "--database", "mysql://ann:secret@db/x")
    assert (done.returncode, done.stderr.strip()) == (
        2, "recalign: --database mysql://ann:***@db/x: must be sqlite or postgresql://user@host/name",
    )  # fmt: skip
