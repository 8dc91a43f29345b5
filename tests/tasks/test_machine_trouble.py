"""What the machine lacks is told in one line, whichever library met with it."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from flows.cli.app import main
from recalign.config import (
    DPO4RecConfig,
    PolicyConfig,
    RecommendationsConfig,
    RejectionsConfig,
    RosePOAlignmentConfig,
    WarmUpConfig,
)
from recalign.errors import UserError
from tasks.engine.trouble import batch_settings, trouble_explained
from tests.full_disk import on_a_full_disk

WRITERS = {
    "text": "Path('out').write_text('x' * 10**6)",
    "numpy": "import numpy; numpy.save('out.npy', numpy.zeros(10**5))",
    "torch": "import torch; torch.save(torch.zeros(10**5), 'out.pt')",
    "safetensors": "import torch; from safetensors.torch import save_file;"
    " save_file({'a': torch.zeros(10**5)}, 'out.safetensors')",
    "polars": "import polars; polars.DataFrame({'a': [i * 0.7 for i in range(10**5)]})"
    ".write_parquet('out.parquet')",
}  # fmt: skip


FEWER = "lower runtime.generation_rows to 16 or fewer (long prompts are read by few anyway)"
ROSEPO = {
    "rejections": RejectionsConfig(),
    "reference": RosePOAlignmentConfig().for_reference(),
}


def limit_memory():
    """Addresses of 4 GB: enough to import everything."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


@pytest.mark.parametrize("library", list(WRITERS))
def test_a_file_that_cannot_be_written_is_told_whoever_writes_it(library, tmp_path):
    code = f"""
from pathlib import Path
from recalign.errors import UserError
from tasks.engine.trouble import trouble_explained
try:
    with trouble_explained("oracle", Path(".")):
        {WRITERS[library]}
except UserError as error:
    print(error)
"""
    printed = on_a_full_disk(code, tmp_path)
    assert printed.startswith(("oracle: File too large (", "oracle: a file could not be"))
    assert "what is finished is kept, run again to continue" in printed


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ESTALE, errno.EHOSTDOWN])
def test_a_root_on_a_machine_that_is_gone_is_told_in_one_line(number, monkeypatch, capsys):
    gone = OSError(number, os.strerror(number), "/mnt/root")
    told = r"^sft: .* \(/mnt/root\); what is finished is kept"
    with pytest.raises(UserError, match=told), trouble_explained("sft", Path("/mnt/root")):
        raise gone

    def stat(path, *args, real=os.stat, **named):
        if str(path).startswith("/mnt/root"):
            raise gone
        return real(path, *args, **named)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(sys, "argv", ["recalign", "ls", "--root", "/mnt/root"])
    with pytest.raises(SystemExit) as ended, patch.dict(os.environ):
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"recalign: /mnt/root: {os.strerror(number)}\n"


@pytest.mark.parametrize(
    ("stage", "allocate", "told"),
    [
        ("alignment", lambda: torch.empty(2**50), "lower alignment.micro_batch_size"),
        ("reasonings", lambda: cuda_full(), "lower runtime.generation_gb"),
        ("current_reasonings", lambda: cuda_full(), "lower runtime.generation_gb"),
        ("recommendations", lambda: cuda_full(), FEWER),
        ("title_serving", lambda: cuda_full(), FEWER),
        ("rejections", lambda: cuda_full(), FEWER),
        ("reference", lambda: cuda_full(), "lower alignment.micro_batch_size"),
        ("oracle", lambda: no_primitive(), "it needs a machine with more"),
        ("splits", lambda: bytearray(2**60), "it needs a machine with more"),
    ],
)
def test_memory_that_runs_out_names_the_stage_and_what_to_lower(stage, allocate, told):
    config = getattr(DPO4RecConfig(), stage, None) or ROSEPO.get(stage) or RecommendationsConfig()
    with pytest.raises(UserError) as raised, trouble_explained(stage, Path("."), config):
        allocate()
    assert str(raised.value).startswith(f"{stage}: out of memory (")
    assert f"); {told}; what is finished is kept" in str(raised.value)


def test_items_rejected_without_an_llm_need_no_fewer_prompts_at_once():
    config = RejectionsConfig(strategy="semantic")
    told = r"\); it needs a machine with more;"
    with pytest.raises(UserError, match=told), trouble_explained("rejections", Path("."), config):
        cuda_full()


def cuda_full():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")


def no_primitive():
    raise RuntimeError("could not create a primitive")  # oneDNN's words, seen under a limit


def test_a_library_that_aborts_for_lack_of_memory_names_the_stage_and_ends_with_code_1(tmp_path):
    code = """
import polars as pl
from pathlib import Path
from tasks.engine.trouble import trouble_explained
with trouble_explained("interactions", Path(".")):
    pl.int_range(10**9, eager=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, preexec_fn=limit_memory, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    assert "recalign: interactions: a library aborted, as polars does without mem" in done.stderr
    assert done.stderr.endswith("what is finished is kept, run again to continue\n")


def test_after_a_stage_an_abort_is_what_it_was_before():
    code = """
import os
from pathlib import Path
from tasks.engine.trouble import trouble_explained
with trouble_explained("splits", Path(".")):
    pass
os.abort()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGABRT


def test_what_to_lower_is_found_in_nested_settings():
    assert batch_settings("policy", DPO4RecConfig().policy) == ["policy.bootstrap.batch_size"]
    loaded = PolicyConfig(kind="huggingface", model="smollm2")
    assert batch_settings("policy", loaded) == []
    warmed_up = PolicyConfig(kind="huggingface", model="smollm2", warm_up=WarmUpConfig(n_prompts=8))
    assert batch_settings("policy", warmed_up) == ["policy.warm_up.micro_batch_size"]


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file"), RuntimeError("No such file (os error 2)")]
)
def test_a_file_that_a_stage_has_not_written_is_a_mistake_of_ours(error):
    with pytest.raises(type(error), match="No such"), trouble_explained("oracle", Path(".")):
        raise error


def test_other_errors_pass_as_they_are():
    with (
        pytest.raises(RuntimeError, match="shape mismatch"),
        trouble_explained("oracle", Path(".")),
    ):
        raise RuntimeError("shape mismatch")
