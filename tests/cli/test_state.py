"""`bulk-updater state`: what was last applied, shown, forgotten and exported."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import TYPE_CHECKING

import click
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from bulk_updater.cli.state import state
from bulk_updater.locks import hold_lock
from bulk_updater.state import Scope, State

if TYPE_CHECKING:
    from pathlib import Path

UUID = "1c08909d-bafe-40bd-a6ab-ae9d3cd45d75"
INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"
ATTRIBUTES = Scope("123456789012", "eu-west-1", INSTANCE, "update_contact_attributes")
CONTACT = Scope("123456789012", "eu-west-1", INSTANCE, "update_contact")
ELSEWHERE = Scope("123456789012", "eu-west-1", "other", "update_contact")
WHERE = f"{INSTANCE}, eu-west-1, 123456789012"
NIGHT = 1_772_352_000
"""2026-03-01T08:00:00Z."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A state with three scopes, where a run looks for it."""
    path = tmp_path / "runs" / "state.sqlite"
    with State.open(path) as state:
        state.confirm(ATTRIBUTES, [(UUID, 2**64 - 1, NIGHT), ("call-2", 1, NIGHT + 1)])
        state.mark(ATTRIBUTES, [("call-2", 2)])
        state.confirm(CONTACT, [(UUID, 7, NIGHT + 2)])
        state.mark(ELSEWHERE, [("call, 9", 9)])
    return path


def contacts_of(path: Path) -> set[tuple[str, str, str]]:
    with State.read_only(path) as state:
        return {(k.scope.operation, k.scope.instance_id, k.contact_id) for k in state.rows()}


ALL = {
    ("update_contact_attributes", INSTANCE, UUID),
    ("update_contact_attributes", INSTANCE, "call-2"),
    ("update_contact", INSTANCE, UUID),
    ("update_contact", "other", "call, 9"),
}


@pytest.mark.usefixtures("path")
def test_show_counts_contacts_and_doubts_by_scope(call):
    """A line for each scope: contacts, in doubt, last applied, operation, instance, account."""
    ran = call("state show")
    assert (ran.code, ran.err) == (0, "")
    assert [
        line.split(maxsplit=3)
        for line in ran.out.replace("in doubt", "in_doubt")
        .replace("last applied", "last_applied")
        .splitlines()
    ] == [
        ["contacts", "in_doubt", "last_applied", "operation, instance, region, account"],
        ["1", "0", "2026-03-01T08:00:02Z", f"update_contact, {WHERE}"],
        ["2", "1", "2026-03-01T08:00:01Z", f"update_contact_attributes, {WHERE}"],
        ["1", "1", "never", "update_contact, other, eu-west-1, 123456789012"],
    ]


def test_show_a_contact_in_every_scope(call, path):
    """Digest and time wherever something is known of it; doubts are named; exit code 0."""
    ran = call(f"state show {UUID} --state {path}")
    assert (ran.code, ran.err) == (0, "")
    applied = "digest 0000000000000007 applied at 2026-03-01T08:00:02Z"
    attributes_applied = "digest ffffffffffffffff applied at 2026-03-01T08:00:00Z"
    assert ran.out.splitlines() == [
        f"update_contact, {WHERE}: {applied}",
        f"update_contact_attributes, {WHERE}: {attributes_applied}",
    ]
    in_doubt = "; something sent since may or may not be applied (in doubt)\n"
    assert call("state show call-2").out == (
        f"update_contact_attributes, {WHERE}: digest 0000000000000001 applied at "
        f"2026-03-01T08:00:01Z{in_doubt}"
    )
    assert call("state show 'call, 9'").out == (
        f"update_contact, other, eu-west-1, 123456789012: nothing was applied for certain{in_doubt}"
    )


@pytest.mark.usefixtures("path")
def test_show_a_contact_of_which_nothing_is_known(call):
    """It says so, with exit code 1."""
    ran = call("state show call-3")
    assert (ran.code, ran.out, ran.err) == (1, "Nothing is known of call-3.\n", "")


def test_show_while_a_run_holds_the_state(call, path):
    """Showing and exporting take no lock and see what was noted last."""
    with State.open(path) as state:
        state.confirm(ELSEWHERE, [("call, 9", 9, NIGHT)])
        ran = call("state show 'call, 9'")
        assert ran.code == 0
        assert "digest 0000000000000009" in ran.out
        assert len(call("state export").out.splitlines()) == 5


@pytest.mark.usefixtures("path")
def test_a_state_without_contacts_says_so(call):
    """Not an empty table."""
    assert call("state forget --all").code == 0
    ran = call("state show")
    assert (ran.code, ran.out) == (0, "Nothing is known of any contact.\n")


@pytest.mark.parametrize(
    "line", ["show", "show call-2", "forget --all", "forget call-2", "export", "show --state x.db"]
)
def test_without_a_state_file_nothing_is_made(call, tmp_path, line):
    """Exit code 2 names the file and --state; no file and no directory is left behind."""
    before = set(tmp_path.iterdir())
    ran = call(f"state {line}")
    assert (ran.code, ran.out) == (2, "")
    name = "x.db" if "x.db" in line else "runs/state.sqlite"
    assert f"There is no state file {name}" in ran.err
    assert "--state" in ran.err
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("line", "left", "said"),
    [
        (UUID, {each for each in ALL if each[2] != UUID}, "2 contacts were forgotten."),
        (f"{UUID} call-2 {UUID}", {("update_contact", "other", "call, 9")}, "3 contacts were"),
        (f"{UUID} --operation update_contact", ALL - {("update_contact", INSTANCE, UUID)}, "1 "),
        (f"--instance {INSTANCE}", {("update_contact", "other", "call, 9")}, "3 contacts were"),
        (
            "--operation update_contact",
            {each for each in ALL if each[0] != "update_contact"},
            "2 contacts were",
        ),
        (
            f"--operation update_contact --instance {INSTANCE}",
            ALL - {("update_contact", INSTANCE, UUID)},
            "1 contact was forgotten.",
        ),
        ("--all", set(), "4 contacts were forgotten."),
        ("call-3", ALL, "nothing was forgotten."),
        ("--instance nowhere", ALL, "nothing was forgotten."),
    ],
)
def test_forget_takes_what_is_named_and_nothing_else(call, path, line, left, said):
    """By contact, instance, operation or all; how many is said; exit code 0."""
    ran = call(f"state forget {line}")
    assert (ran.code, ran.err) == (0, "")
    assert said in ran.out
    assert contacts_of(path) == left


def test_forget_needs_to_be_told_what(call, path):
    """Neither nothing nor --all beside something narrower: exit code 2, and all is still known."""
    for line in ("", f"--all {UUID}", "--all --instance x", "--all --operation update_contact"):
        ran = call(f"state forget {line}")
        assert (ran.code, ran.out) == (2, "")
        assert "--all" in ran.err
    assert contacts_of(path) == ALL


def test_no_variable_makes_forget_forget(call, path, monkeypatch):
    """--all, --instance and --operation have to be typed."""
    for name, value in (("ALL", "1"), ("INSTANCE", INSTANCE), ("OPERATION", "update_contact")):
        monkeypatch.setenv(f"BULK_UPDATER_STATE_FORGET_{name}", value)
    assert call("state forget").code == 2
    assert contacts_of(path) == ALL


def test_forget_is_refused_while_a_run_has_the_state(call, path):
    """Exit code 2 says who has it since when, and that nothing was forgotten."""
    lock = path.with_name("state.sqlite.lock")
    with hold_lock(lock, clock=lambda: NIGHT):
        ran = call("state forget --all")
    assert (ran.code, ran.out) == (2, "")
    assert "since 2026-03-01T08:00:00.000Z. Nothing was forgotten." in ran.err
    assert contacts_of(path) == ALL


def exported() -> list[dict]:
    """What an export of the fixture's state holds."""

    def record(operation, instance, contact, digest, applied_at, *, in_doubt):
        return {
            "account": "123456789012",
            "region": "eu-west-1",
            "instance_id": instance,
            "operation": operation,
            "contact_id": contact,
            "digest": digest,
            "applied_at": applied_at,
            "in_doubt": in_doubt,
        }

    return [
        record(
            *("update_contact", INSTANCE, UUID, "0000000000000007", "2026-03-01T08:00:02Z"),
            in_doubt=False,
        ),
        record("update_contact", "other", "call, 9", None, None, in_doubt=True),
        record(
            *("update_contact_attributes", INSTANCE, UUID, "f" * 16, "2026-03-01T08:00:00Z"),
            in_doubt=False,
        ),
        record(
            *("update_contact_attributes", INSTANCE, "call-2", "0000000000000001"),
            "2026-03-01T08:00:01Z",
            in_doubt=True,
        ),
    ]


def by_scope(record: dict) -> tuple:
    return record["operation"], record["instance_id"], record["contact_id"]


def as_csv(record: dict) -> dict:
    texts = {name: "" if value is None else str(value) for name, value in record.items()}
    return texts | {"in_doubt": str(record["in_doubt"]).lower()}


@pytest.mark.usefixtures("path")
def test_export_as_csv_is_the_default(call):
    """A header and a line for each contact and scope; what is not known is empty."""
    ran = call("state export")
    assert (ran.code, ran.err) == (0, "")
    read = list(csv.DictReader(io.StringIO(ran.out)))
    assert sorted(read, key=by_scope) == sorted(map(as_csv, exported()), key=by_scope)


@pytest.mark.usefixtures("path")
def test_export_as_json_lines(call):
    """One object a line; what is not known is null, doubts are booleans."""
    ran = call("state export --format json")
    assert ran.code == 0
    read = [json.loads(line) for line in ran.out.splitlines()]
    assert sorted(read, key=by_scope) == sorted(exported(), key=by_scope)


@pytest.mark.parametrize("name", ["s.csv", "s.json", "s.JSONL", "s.parquet"])
@pytest.mark.usefixtures("path")
def test_export_into_a_file_by_its_name(call, tmp_path, name):
    """The format is what the name ends in; nothing is printed."""
    ran = call(f"state export --output {name}")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    path, expected = tmp_path / name, sorted(exported(), key=by_scope)
    if name == "s.csv":
        read = list(csv.DictReader(io.StringIO(path.read_text())))
        expected = [as_csv(record) for record in expected]
    elif name == "s.parquet":
        read = pq.read_table(path).to_pylist()
    else:
        read = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert sorted(read, key=by_scope) == expected


def test_export_of_many_contacts_in_several_pages(call, path, tmp_path):
    """Ten thousand and one contacts over all pages: each once."""
    with State.open(path) as state:
        state.confirm(ELSEWHERE, [(f"many-{n}", n, NIGHT) for n in range(10_001)])
    assert call("state export --output s.parquet").code == 0
    ids = pq.read_table(tmp_path / "s.parquet")["contact_id"].to_pylist()
    assert sum(each.startswith("many-") for each in ids) == 10_001
    assert len(set(ids)) == len(ids) - 1  # the UUID is in two scopes


def test_export_refuses_what_cannot_be_written(call, path, tmp_path, monkeypatch):
    """An unknown ending, a file in no directory, the state itself, Parquet on a terminal."""
    before = path.read_bytes()
    for line, said in (
        ("--output s.xlsx", "does not end in .csv, .json, .jsonl or .parquet"),
        ("--output no/s.csv", "cannot be written (No such file or directory)"),
        (f"--output {path} --format csv", "is the state file itself"),
        ("--output s.link --format csv", "is the state file itself"),
    ):
        (tmp_path / "s.link").unlink(missing_ok=True)
        (tmp_path / "s.link").symlink_to(path)
        ran = call(f"state export {line}")
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
    assert path.read_bytes() == before
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)
    assert "name a file with --output" in call("state export --format parquet").err


@pytest.mark.parametrize("line", ["show", "show call-2", "export", "forget --all"])
def test_a_file_that_is_no_state_is_refused_and_stays(call, tmp_path, line):
    """Exit code 2 in words, for every command; not a byte is changed."""
    (tmp_path / "notes.txt").write_text("not a database, but more than sixteen bytes of text")
    before = (tmp_path / "notes.txt").read_bytes()
    ran = call(f"state {line} --state notes.txt")
    assert (ran.code, ran.out) == (2, "")
    assert "notes.txt: is no state file: it is no SQLite database" in ran.err
    assert (tmp_path / "notes.txt").read_bytes() == before
    assert not list(tmp_path.glob("notes.txt-*"))


COMMANDS = sorted(state.commands)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", [80, 88])
def test_every_command_explains_itself_within_the_screen(name, width):
    """A help for itself and for every option, in lines that are no longer than the screen."""
    ran = CliRunner().invoke(state, [name, "--help"], terminal_width=width)
    assert ran.exit_code == 0
    assert max(map(len, ran.output.splitlines())) <= width
    command = state.commands[name]
    assert command.help
    assert command.get_short_help_str(60)
    assert all(each.help for each in command.params if isinstance(each, click.Option))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_command(name):
    """What the help shows can be parsed as it stands."""
    command = state.commands[name]
    for line in (command.epilog or "").splitlines():
        words = line.split("|")[0].split()
        if words[:3] == ["bulk-updater", "state", name]:
            command.make_context(name, words[3:])


@pytest.mark.usefixtures("path")
def test_variables_stand_in_for_options(call, path, tmp_path, monkeypatch):
    """BULK_UPDATER_STATE_<COMMAND>_<OPTION>, as the help of the program says."""
    path.rename(tmp_path / "s.sqlite")
    for name in COMMANDS:
        monkeypatch.setenv(f"BULK_UPDATER_STATE_{name.upper()}_STATE", "s.sqlite")
    monkeypatch.setenv("BULK_UPDATER_STATE_EXPORT_FORMAT", "json")
    assert call("state show call-2").code == 0
    assert len([json.loads(line) for line in call("state export").out.splitlines()]) == 4
    monkeypatch.setenv("BULK_UPDATER_STATE_EXPORT_OUTPUT", "s.jsonl")
    assert call("state export").out == ""
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 4
    assert call("state forget call-2").out == "1 contact was forgotten.\n"
