"""The flags that guard a run and those that leave out what did not change."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

import pytest

from bulk_updater.config import ChangesConfig, RunConfig

CHANGES = "--only-changed"

FLAGS = [
    ("--canary 50", "canary", 50),
    ("--expect-instance i-1", "expect_instance", "i-1"),
    ("--order oldest-first", "order", "oldest-first"),
    ("--order file", "order", "file"),
    (CHANGES, "changes", ChangesConfig(only_changed=True)),
    (
        f"{CHANGES} --state s.sqlite",
        "changes",
        ChangesConfig(only_changed=True, state_file=Path("s.sqlite")),
    ),
    (
        f"{CHANGES} --refresh 30d",
        "changes",
        ChangesConfig(only_changed=True, refresh_s=30 * 86_400.0),
    ),
    (
        f"{CHANGES} --verify-drift 1%",
        "changes",
        ChangesConfig(only_changed=True, verify_drift=0.01),
    ),
    (
        f"{CHANGES} --verify-drift 0.5%",
        "changes",
        ChangesConfig(only_changed=True, verify_drift=0.005),
    ),
    (f"{CHANGES} --max-change 20%", "changes", ChangesConfig(only_changed=True, max_change=0.2)),
    (f"{CHANGES} --max-change 100%", "changes", ChangesConfig(only_changed=True, max_change=1.0)),
]


@pytest.mark.parametrize(("flags", "name", "value"), FLAGS)
def test_every_flag_reaches_the_run(call, configs, flags, name, value):
    """A flag sets its value, and nothing else of these differs from the defaults."""
    assert call(f"run mapping.yaml export.csv {flags}").code == 0
    default = RunConfig(mapping=Path("mapping.yaml"), sources=(Path("export.csv"),))
    names = {each for _, each, _ in FLAGS}
    expected = {each: attrgetter(each)(default) for each in names} | {name: value}
    assert {each: attrgetter(each)(configs[0]) for each in names} == expected


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--canary 0", "--canary is 0; it must be at least 1."),
        ("--canary many", "'many' is not a valid integer."),
        ("--order newest-first", "'newest-first' is not one of 'file', 'oldest-first'."),
        (f"{CHANGES} --verify-drift 1", '"1" is no share: it is a number above 0 and up to 100'),
        (f"{CHANGES} --verify-drift 0%", '"0%" is no share'),
        (f"{CHANGES} --verify-drift 101%", '"101%" is no share'),
        (f"{CHANGES} --verify-drift nan%", '"nan%" is no share'),
        (f"{CHANGES} --max-change 0.2", "as in --max-change 20%."),
        (f"{CHANGES} --max-change=-5%", '"-5%" is no share'),
        (f"{CHANGES} --refresh soon", '--refresh "soon" is no length of time.'),
        (f"{CHANGES} --refresh 0d", '--refresh "0d" is no length of time.'),
        ("--state s.sqlite", "--state s.sqlite: there is no such file, and without --only-changed"),
        ("--refresh 30d", "--refresh says how changes are told"),
        ("--verify-drift 1%", "--verify-drift says how changes are told"),
        ("--max-change 20%", "--max-change says how changes are told"),
    ],
)
def test_a_flag_that_makes_no_sense_is_refused(call, configs, flags, says):
    """Exit code 2, the flag and what it may be, and no run."""
    ran = call(f"run mapping.yaml export.csv {flags}")
    assert (ran.code, ran.out, configs) == (2, "", [])
    assert ran.err.startswith("error: ")
    assert says in ran.err


def test_a_run_of_all_rows_is_told_which_state_it_changes(call, configs, tmp_path):
    """`--state` alone names the file that is to know of it, where there is one."""
    (tmp_path / "s.sqlite").touch()
    assert call("run mapping.yaml export.csv --state s.sqlite").code == 0
    assert configs[0].changes == ChangesConfig(state_file=Path("s.sqlite"))


def test_a_plan_takes_what_decides_which_rows_are_sent_and_when(call):
    """The same command line plans and runs; what only a run can do is no flag of a plan."""
    assert (
        "Nothing was sent."
        in call(
            "plan mapping.yaml export.csv --rate 5 --only-changed --state none.sqlite --refresh 30d"
            " --verify-drift 1% --max-change 20% --order file"
        ).out
    )
    for flag in ("--canary 5", "--confirm"):
        ran = call(f"plan mapping.yaml export.csv {flag}")
        assert (ran.code, ran.out) == (2, "")
        assert "No such option" in ran.err
