"""SIGKILL at any moment, then the same command: nothing is lost, hardly anything is repeated."""

from __future__ import annotations

import json
import random
import signal

from .conftest import MAPPING, export_of, ledger_of, standing, state_of

N_ROWS, N_CONTACTS = 900, 300
MAX_IN_FLIGHT = 16


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(shell, served, warm):
    """After four kills: state, results and exit code of one run; repeats within the bound."""
    rng = random.Random(20260301)
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(N_ROWS, N_CONTACTS, "killed"))
    ledger = shell.folder / "run" / "ledger.jsonl"
    command = (
        *("run", "mapping.yaml", "export.csv", "--run-dir", "run", "--endpoint-url", served.url),
        *("--rate", "400", "--max-in-flight", str(MAX_IN_FLIGHT)),
    )
    n_kills = 4
    for _ in range(n_kills):
        started = shell.start(*command)
        served.wait_for(rng.randrange(1, 120), of=started)
        started.signal(signal.SIGKILL)
        assert started.wait().code == -signal.SIGKILL
    last = warm.run(shell.folder, *command)
    assert last.code == 0, last
    assert f"{N_ROWS} rows; " in last.out

    assert served.attributes("killed") == state_of(N_ROWS, N_CONTACTS, "killed")
    results = standing(ledger)
    operation = "update_contact_attributes"
    assert results == {(row, operation): "UPDATED" for row in range(1, N_ROWS + 1)}
    with_result = {record["request_id"] for record in ledger_of(ledger)}
    applied = [
        write["request_id"]
        for write in served.get("log")
        if write["contact_id"].startswith("killed")
    ]
    assert len(set(applied) - with_result) <= n_kills * MAX_IN_FLIGHT
    assert with_result <= set(applied)


def test_a_kill_before_the_first_request_leaves_nothing_in_the_way(shell, served, warm):
    """Killed as soon as the run directory is there: the same command starts and finishes."""
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(50, 50, "early"))
    words = ("run", "mapping.yaml", "export.csv", "--run-dir", "run", "--endpoint-url", served.url)
    started = shell.start(*words, "--rate", "5000")
    started.watch((shell.folder / "run" / "lock").exists, "the run directory")
    started.signal(signal.SIGKILL)
    started.wait()
    ran = warm.run(shell.folder, *words, "--rate", "5000", "--json")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["outcomes"]["UPDATED"] == 50
    assert served.attributes("early") == state_of(50, 50, "early")
