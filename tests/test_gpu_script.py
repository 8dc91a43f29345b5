"""The script for a GPU machine, tried on the processor with tiny shapes."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
STUB_PYTHON = "#!/bin/sh\necho a GPU\n"
STUB_TIMEOUT = '#!/bin/sh\necho "$3 $*" >>"$ASKED"\n'  # after -k 5


def run_script(device, out, **settings):
    return subprocess.run(
        ["bash", "benchmarks/gpu.sh", device, str(out)], cwd=ROOT, timeout=600,
        env=os.environ | {"PYTHON": sys.executable} | settings, capture_output=True, text=True,
    )  # fmt: skip


def wheel(folder, name, code):
    """A wheel of one module."""
    folder.mkdir()
    with ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as made:
        made.writestr(f"{name}.py", code)
        info = f"{name}-1.0.dist-info"
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        made.writestr(f"{info}/WHEEL", tags)
        made.writestr(f"{info}/RECORD", "")


def test_the_limits_of_all_parts_fit_into_the_whole_and_ours_in_4_bits_comes_before_trl(tmp_path):
    for name, code in (("python", STUB_PYTHON), ("timeout", STUB_TIMEOUT)):
        (tmp_path / name).write_text(code)
        (tmp_path / name).chmod(0o755)
    for model in ("smollm2", "1b", "8b"):
        (tmp_path / "out" / "models" / model).mkdir(parents=True)
    done = run_script(
        "cuda", tmp_path / "out", PYTHON=str(tmp_path / "python"), ASKED=str(tmp_path / "asked"),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 12
    assert sum(int(line.split()[0]) for line in asked) <= 9.5 * 60 - 10
    assert "--quantisation nf4" in asked[-2]
    assert "8b" in asked[-1]
    assert "TRL tuned" in asked[-1]


def test_wheels_go_before_what_python_has_and_hide_none_of_it(tmp_path):
    code = "import os\nopen(os.environ['SEEN'], 'a').write('seen')\n"
    wheel(tmp_path / "wheels", "sitecustomize", code)  # python imports it when it starts
    done = run_script(
        "cpu", tmp_path / "out", WHEELS=str(tmp_path / "wheels"), PARTS="none",
        SEEN=str(tmp_path / "seen"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text().startswith("seen")
    assert done.stdout.startswith("processor, torch ")


def test_wheels_that_cannot_be_installed_end_the_script_with_the_reason(tmp_path):
    (tmp_path / "none").mkdir()
    done = run_script("cpu", tmp_path / "out", WHEELS=str(tmp_path / "none"), PARTS="none")
    assert done.returncode == 1
    (told,) = done.stdout.splitlines()
    assert told.startswith(f"the wheels of {tmp_path}/none cannot be installed: ")


@pytest.mark.slow  # a process per part: what it tries are the commands and their options
def test_the_gpu_script_prints_a_row_per_part_and_goes_on_after_one_that_fails(tmp_path):
    done = run_script(
        "cpu", tmp_path / "out", PARTS="model guard generation dpo sasrec",
        RECALIGN_CACHE=str(tmp_path / "empty"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "out" / "table.md").read_text()
    assert done.stdout == table
    header, *rows = [line.strip("|").split("|") for line in table.splitlines() if line[:1] == "|"]
    assert [cell.strip() for cell in header] == ["part", "speed", "beside", "peak memory"]
    told = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows[1:]}
    assert list(told) == [
        "model smollm2", "guard, two processes, cpu", "SASRec, loss full", "smollm2",
        "generation, tiny, bfloat16", "DPO step, tiny, lora, bfloat16, recalign",
        "DPO step, tiny, lora, bfloat16, TRL tuned",
    ]  # fmt: skip
    assert "run `recalign fetch smollm2` first" in told["model smollm2"][0]
    assert told["guard, two processes, cpu"][0] == "one at a time"
    speed, beside, memory = told["generation, tiny, bfloat16"]
    assert speed.endswith(" tokens/s")
    assert beside.endswith(" x generate")
    assert memory.endswith(" GiB")
    for name in ("recalign", "TRL tuned"):
        assert told[f"DPO step, tiny, lora, bfloat16, {name}"][0].endswith(" pairs/s")
    assert told["DPO step, tiny, lora, bfloat16, TRL tuned"][1].endswith(" x recalign")
