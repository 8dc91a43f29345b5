"""What the benchmarks decide for a GPU, as far as a processor can tell."""

import gc
import importlib
import weakref
from pathlib import Path

import pytest
from torch.utils._python_dispatch import _get_current_dispatch_mode

BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")


@pytest.fixture
def benchmark_module(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_texts_may_take_half_of_a_gpus_free_memory_and_the_usual_room_elsewhere(benchmark_module):
    room = benchmark_module("device").gigabytes_at_once
    assert room(2.0, None) == 2.0
    assert room(2.0, 120 * 10**9) == 60.0


def test_a_peak_is_measured_anew_without_what_only_cycles_hold(benchmark_module):
    class Trainer:
        pass

    gc.disable()
    try:
        trainer = Trainer()
        vars(trainer)["itself"], held = trainer, weakref.ref(trainer)
        del trainer
        assert held() is not None
        benchmark_module("device").forget_peak("cpu")
        assert held() is None
    finally:
        gc.enable()


def test_operations_are_counted_in_the_first_step_of_ours_and_never_in_trls(benchmark_module):
    clock_of = benchmark_module("alignment").Clock
    for counts in (True, False):
        clock = clock_of(threads=1, n_steps=3, counts=counts)
        seen = []
        for _ in range(3):
            clock.on_step_begin(None, None, None)
            seen.append(_get_current_dispatch_mode() is not None)
            clock.on_step_end(None, None, None)
        assert seen == [counts, False, False]
        assert len(clock.timed().seconds) == 1


def test_trl_recomputes_activations_where_ours_does(benchmark_module):
    arguments = benchmark_module("alignment").tuned_arguments
    assert arguments("cuda")["activation_checkpointing"] is True
    assert arguments("cpu")["activation_checkpointing"] is False


def test_what_a_gguf_file_was_converted_to_is_taken_again(benchmark_module, tmp_path):
    shapes = benchmark_module("shapes")
    gguf = tmp_path / "smollm2" / "model.gguf"
    kept = shapes.kept_beside(gguf)
    kept.mkdir(parents=True)
    (kept / "config.json").write_text("{}")
    shapes.bring(gguf, tmp_path / "models" / "smollm2")  # there is no file to convert
    assert (tmp_path / "models" / "smollm2" / "config.json").read_text() == "{}"
