"""A sweep in this process: cells that fail, and the note of a sweep that has not ended."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from flows.methods import METHODS, Method
from flows.sweep import SweepRun, conduct_sweep, name_of_note
from recalign.artifacts.identity import Identity
from recalign.artifacts.manifest import Reference, fingerprints
from recalign.artifacts.sweep_notes import reports_of_sweeps
from recalign.config import DPO4RecConfig, Runtime
from recalign.config.sweep import Sweep
from recalign.errors import UserError
from recalign.report import PAGE

DPO4REC = METHODS[0]


class Committed(SweepRun):
    """A walk whose leaderboard is a page of nothing; `shown` are the settings and inputs of it."""

    shown: Any = None

    def __call__(self, stage, config, inputs=None, **how) -> Reference:
        self.shown = config, inputs
        return self.commit(stage.name, config.identity(), inputs)

    def commit(self, stage: str, config: dict[str, Any], inputs: dict[str, Reference]) -> Reference:
        identity = Identity(stage, 1, config, fingerprints(inputs), {})
        draft = self.store.draft(identity, inputs)
        draft.path(PAGE).write_text("a page")
        return self.store.commit(draft).reference


def method_of(walk) -> Method:
    """A method whose cells end as `walk` says, given the run and a cell's beta."""
    wiring: Any = SimpleNamespace(
        walk=lambda run, config: walk(run, config.alignment.beta), headline=lambda config: ""
    )
    return Method("dpo4rec", DPO4RecConfig, "report", lambda: wiring)


def reported(run: Committed, beta: float) -> Reference:
    if beta == 0.2:
        raise UserError("this cell fails")
    return run.commit("report", {"beta": beta}, {})


def cells_of(*values: str, preset: str = "tiny") -> Any:
    return Sweep(preset, over=[f"alignment.beta={','.join(values)}"]).cells(DPO4RecConfig)


def test_a_note_that_cannot_be_written_moves_no_cells_result_to_another(tmp_path, caplog):
    run = Committed(Runtime(root=str(tmp_path)))
    (tmp_path / ".sweeps").write_text("no folder, so no note can be written into it")
    cells = cells_of("0.1", "0.2", "0.3", "0.4")
    with caplog.at_level(logging.WARNING):
        state = conduct_sweep(method_of(reported), cells, run, "f" * 32)
    assert state.message == "1 of 4 cells failed: alignment.beta=0.2, seed 0: this cell fails"
    config, inputs = run.shown
    assert [bool(cell.error) for cell in config.cells] == [False, True, False, False]
    betas = {name: run.store.open(end).manifest.config["beta"] for name, end in inputs.items()}
    assert betas == {"cell_0": 0.1, "cell_2": 0.3, "cell_3": 0.4}
    assert ".sweeps/ffff" in caplog.text


def test_a_note_stays_until_its_sweep_ends_and_is_called_by_what_was_asked(tmp_path):
    killed = [0.3]

    def walk(run: Committed, beta: float) -> Reference:
        if beta in killed:
            raise KeyboardInterrupt
        return reported(run, beta)

    run, cells = Committed(Runtime(root=str(tmp_path))), cells_of("0.1", "0.3")
    note = name_of_note(DPO4REC, cells)
    with pytest.raises(KeyboardInterrupt):
        conduct_sweep(method_of(walk), cells, run, note)
    assert run.store.notes(".sweeps") == [f".sweeps/{note}.json"]
    killed.clear()
    again = cells_of("0.1", "0.3")
    conduct_sweep(method_of(walk), again, run, name_of_note(DPO4REC, again))
    assert run.store.notes(".sweeps") == []


def test_a_sweep_that_is_killed_twice_keeps_what_either_run_had_made(tmp_path):
    def killed_after(n_cells):
        done: list[Reference] = []

        def walk(run: Committed, beta: float) -> Reference:
            if len(done) == n_cells:
                raise KeyboardInterrupt
            done.append(reported(run, beta))
            return done[-1]

        run = Committed(Runtime(root=str(tmp_path)))
        with pytest.raises(KeyboardInterrupt):
            conduct_sweep(method_of(walk), cells_of("0.1", "0.3", "0.4"), run, "f" * 32)
        return [one.fingerprint for one in done], reports_of_sweeps(run.store)

    first, noted = killed_after(2)
    assert list(noted.values()) == [first]
    second, noted = killed_after(1)
    assert second == first[:1]
    assert list(noted.values()) == [first]


def test_sweeps_over_data_that_is_not_here_yet_have_notes_of_their_own():
    asked = [cells_of("0.1", "0.3", preset="ml-100k"), cells_of("0.1", "0.4", preset="ml-100k")]
    assert len({name_of_note(DPO4REC, cells) for cells in asked}) == 2
