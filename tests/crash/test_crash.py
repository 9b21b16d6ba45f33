"""SIGKILL at every point where a result can be lost: the resumed run ends as one never killed.

`python -m tests.crash` does the same many more times.
"""

from __future__ import annotations

import contextlib
import signal

import pytest

from tests.e2e.processes import (
    MAPPING,
    Served,
    Shell,
    Warm,
    export_of,
    ledger_of,
    standing,
    state_of,
)

from .cases import RECOVERY_POINTS, RUN_POINTS, SANDBOX, kill_and_resume
from .child import POINTS

REPAIR_POINTS = ("repair_copying", "repair_copied", "repair_kept", "repair_cut")


@pytest.fixture(scope="module")
def warm():
    with contextlib.closing(Warm("tests.crash.child")) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    shell = Shell(tmp_path_factory.mktemp("sandbox"))
    with contextlib.closing(shell):
        yield Served(shell, *SANDBOX)


def test_every_point_is_killed_at():
    """What a process can die of, and what is tested here, is the same."""
    assert {*RUN_POINTS, *RECOVERY_POINTS, *REPAIR_POINTS} == set(POINTS)


@pytest.mark.parametrize(
    ("point", "seed"),
    [(point, seed) for point in RUN_POINTS if point != "random" for seed in (1, 2)]
    + [(point, 1) for point in RECOVERY_POINTS],
)
def test_a_run_that_is_killed_and_resumed_ends_as_if_it_had_not_been(
    warm, served, tmp_path, point, seed
):
    """One result for each row and operation, the contacts of the export, no row sent again that
    had its result, and repeated requests within the bound."""
    case = kill_and_resume(warm, served, tmp_path, point, seed)
    assert case.violations == []
    assert case.n_kills >= 1


def test_it_does_so_wherever_it_is_killed(warm, served, tmp_path):
    """Killed by another process at a random moment, three times."""
    n_kills = 0
    for seed in range(1, 31):
        folder = tmp_path / str(seed)
        folder.mkdir()
        case = kill_and_resume(warm, served, folder, "random", seed)
        assert case.violations == []
        n_kills += case.n_kills
        if n_kills >= 3:
            return
    pytest.fail(f"30 runs were killed {n_kills} times")


@pytest.mark.parametrize("point", REPAIR_POINTS)
def test_a_repair_that_is_killed_leaves_the_ledger_as_it_was_or_as_it_is_to_be(
    warm, served, tmp_path, point
):
    """Either way the next repair mends it, and the run ends with what the export asks for."""
    prefix = f"{point}-"
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    (tmp_path / "export.csv").write_text(export_of(40, 10, prefix))
    ledger = tmp_path / "run" / "ledger.jsonl"
    run = (
        *("run", "mapping.yaml", "export.csv", "--run-dir", "run", "--endpoint-url", served.url),
        *("--rate", "1000", "--max-in-flight", "4"),
    )
    nowhere = {"point": None, "n": 1, "share": 0.5}
    assert warm.run(tmp_path, *run, prepare=nowhere).code == 0
    lines = ledger.read_bytes().splitlines(keepends=True)
    intact = b"".join(lines[:15])
    damaged = b"".join([intact, lines[15].replace(b"{", b"\\0", 1), *lines[16:]])
    ledger.write_bytes(damaged)
    assert warm.run(tmp_path, *run, prepare=nowhere).code == 2
    assert ledger.read_bytes() == damaged

    repair = ("ledger", "run", "--repair")
    killed = warm.run(tmp_path, *repair, prepare=nowhere | {"point": point})
    assert killed.code == -signal.SIGKILL, killed
    copies = [each.read_bytes() for each in ledger.parent.glob("ledger.jsonl.damaged-*")]
    is_cut = point == "repair_cut"
    assert ledger.read_bytes() == (intact if is_cut else damaged)
    assert copies == ([damaged] if point in ("repair_kept", "repair_cut") else [])

    repaired = warm.run(tmp_path, *repair, prepare=nowhere)
    assert repaired.code == 0, repaired
    assert ("is whole (15 results)" in repaired.out) == is_cut
    assert ledger.read_bytes() == intact
    copies = [each.read_bytes() for each in ledger.parent.glob("ledger.jsonl.damaged-*")]
    assert copies == [damaged] * (2 if point == "repair_kept" else 1)

    last = warm.run(tmp_path, *run, prepare=nowhere)
    assert last.code == 0, last
    assert len(standing(ledger)) == len(ledger_of(ledger)) == 40
    assert ledger.read_bytes().startswith(intact)
    assert served.attributes(prefix) == state_of(40, 10, prefix)
