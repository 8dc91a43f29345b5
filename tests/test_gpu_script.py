"""The script for a GPU machine, tried on the processor with tiny shapes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow  # a process per part: what it tries are the commands and their options
def test_the_gpu_script_prints_a_row_per_part_and_goes_on_after_one_that_fails(tmp_path):
    parts = {"PARTS": "model generation dpo sasrec", "RECALIGN_CACHE": str(tmp_path / "empty")}
    done = subprocess.run(
        ["bash", "benchmarks/gpu.sh", "cpu", str(tmp_path / "out")], cwd=ROOT, timeout=600,
        env=os.environ | parts | {"PYTHON": sys.executable}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    table = (tmp_path / "out" / "table.md").read_text()
    assert done.stdout == table
    header, *rows = [line.strip("|").split("|") for line in table.splitlines() if line[:1] == "|"]
    assert [cell.strip() for cell in header] == ["part", "speed", "beside", "peak memory"]
    told = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows[1:]}
    assert list(told) == [
        "model smollm2", "SASRec, loss full", "smollm2", "generation, tiny, bfloat16",
        "DPO step, tiny, lora, bfloat16, recalign",
    ]  # fmt: skip
    assert "run `recalign fetch smollm2` first" in told["model smollm2"][0]
    speed, beside, memory = told["generation, tiny, bfloat16"]
    assert speed.endswith(" tokens/s")
    assert beside.endswith(" x generate")
    assert memory.endswith(" GiB")
    speed, beside, _ = told["DPO step, tiny, lora, bfloat16, recalign"]
    assert speed.endswith(" pairs/s")
    assert beside.endswith(" x TRL tuned")
