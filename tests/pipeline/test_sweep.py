"""Sweeps from the command line: what cells share, what fails, what a kill loses, comparisons."""

import os
import re
import signal
import time

import httpx
import polars as pl
import pytest

from flows.service.reports import NAMED, PATH, ROOT
from tests.conftest import Recalign
from tests.pipeline.roots import manifests

SWEEP = ("sweep", "dpo4rec", "--preset", "tiny")
LISTS = ("--over", "evaluation.list_length=10,15")


def plan_of(recalign, root, *asked):
    """Stages, reused and to do of what several cells need and of each cell, and the last line."""
    said = recalign(*SWEEP, *asked, "--plan", "--root", str(root)).stdout.splitlines()
    rows = {" ".join(line.split()[:-3]): tuple(map(int, line.split()[-3:])) for line in said[1:-1]}
    return rows, said[-1]


def board(root):
    (folder,) = root.glob("leaderboard/[!.]*")
    return folder


def test_a_plan_counts_what_cells_share_once(recalign, copy):
    # The ordinary run is there. Other lists change its evaluations: three validations (of the base
    # policy and two rounds), the test, and the report.
    rows, total = plan_of(recalign, copy, "--over", "evaluation.list_length=20,10,15")
    shared = rows["several cells"]
    assert shared[1:] == (shared[0], 0)
    assert rows["evaluation.list_length=20, seed 0"][1:] == (5, 0)
    assert rows["evaluation.list_length=10, seed 0"] == (5, 0, 5)
    assert total == f"{shared[0] + 15 + 1} steps: {shared[0] + 5} reused, 11 to do"
    _, seeds = plan_of(recalign, copy, "--seeds", "2")
    assert int(seeds.split()[0]) < 2 * (shared[0] + 5)  # data and oracle count once


def test_a_failed_cell_is_shown_and_the_others_get_their_page(
    recalign, prefect_api, copy, tmp_path
):
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("{{ nobody.knows }}")
    asked = ("--over", f"reasonings.template={wrong},attributes", "--root", str(copy))
    in_service = Recalign(prefect_api)
    in_service.environment[ROOT] = str(copy)  # the root whose pages that server shows
    done = in_service(*SWEEP, *asked, check=False)
    assert done.returncode == 1, done.stderr
    failed = f"1 of 2 cells failed: reasonings.template={wrong}, seed 0: prompt template"
    assert failed in done.stdout
    cells = pl.read_parquet(board(copy) / "cells.parquet")
    assert cells["run"].is_null().to_list() == [True, False]
    assert "'nobody' is undefined" in cells["error"][0]
    page = (board(copy) / "report.html").read_text()
    assert f"Failed, and missing here: reasonings.template={wrong}, seed 0" in page
    settings = pl.read_parquet(board(copy) / "leaderboard.parquet")["setting"].unique().to_list()
    assert settings == ["reasonings.template=attributes"]
    named = recalign("report", "--root", str(copy)).stdout.strip()
    assert named == str(board(copy) / "report.html")
    link = f"{PATH}/leaderboard/{board(copy).name}"
    assert NAMED.fullmatch(link)
    wanted = {"artifacts": {"key": {"any_": ["outcome"]}}, "sort": "CREATED_DESC"}
    newest = httpx.post(f"{prefect_api}/artifacts/filter", json=wanted, timeout=30).json()[0]
    assert newest["data"].startswith(f"[Open the leaderboard]({link})\n")


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_its_runs_can_be_compared_later(recalign, copy):
    before = manifests(copy)
    command = (*SWEEP, *LISTS, "--root", str(copy))
    process = recalign.start(*command)
    deadline = time.monotonic() + 300
    while not [key for key in manifests(copy) if key[0] == "evaluation" and key not in before]:
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    left = manifests(copy)
    assert not list(copy.glob("leaderboard/[!.]*"))

    recalign(*command)
    after = manifests(copy)
    assert left.items() <= after.items()  # nothing that was finished is computed again
    made = [stage for stage, _ in set(after) - set(before)]
    assert sorted(made) == ["evaluation"] * 8 + ["leaderboard", "report", "report"]
    assert (copy / ".sweeps").is_dir()
    assert not list((copy / ".sweeps").iterdir())

    again = recalign.alone(*command)
    assert re.match(r"nothing to do: \d+ steps: \d+ reused, 0 to do\n", again.stdout)
    assert again.stdout.endswith(f"leaderboard: {board(copy) / 'report.html'}\n")
    assert "temporary server" not in again.stderr

    told = pl.read_parquet(board(copy) / "comparisons.parquet")
    assert told["question"].to_list() == [
        "Is it better than Base policy, greedy?",
        "Is it better than Base policy, greedy?",
        "Is it better than evaluation.list_length=10?",
    ]
    # Both settings have the same texts, and the catalogue has no lists: no difference at all.
    assert told.row(2, named=True)["difference"] == 0

    runs = sorted(f"report/{key}" for stage, key in set(after) - set(before) if stage == "report")
    said = recalign("compare", *runs, "--root", str(copy)).stdout
    page = re.fullmatch(r"leaderboard: (.*)\n", said)
    assert page
    text = open(page[1]).read()  # noqa: SIM115
    assert "evaluation.list_length=15" in text
    other = recalign("compare", runs[0], runs[0], "--root", str(copy), check=False)
    assert (other.returncode, "is given twice" in other.stderr) == (2, True)
