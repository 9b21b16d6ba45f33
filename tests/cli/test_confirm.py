"""`--confirm`: who is asked, what is said, and which answers send."""

from __future__ import annotations

import io
import sys

import pytest

from .conftest import INSTANCE

FROM_ROWS = """
update_contact_attributes:
  InstanceId: "{Instance}"
  InitialContactId: "{Contact}"
  Attributes:
    tier: "{Tier}"
"""

QUESTION = "Send them? [y/N] "


@pytest.fixture
def asked(call, monkeypatch):  # noqa: ARG001 - `call` replaces standard error, so it comes first
    """A person at a terminal, who answers what is put into the list."""
    answers: list[str] = []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, *_):
            return answers.pop(0)

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _self: True, raising=False)
    return answers


COMMAND = "run mapping.yaml export.csv --rate 5 --endpoint-url http://127.0.0.1:9 --confirm"


@pytest.mark.parametrize("answer", ["y\n", "Y\n", "yes\n", " YES \n"])
def test_yes_sends(call, configs, asked, answer):
    """With a yes the run begins, once, and it is the run that was asked about."""
    asked.append(answer)
    ran = call(COMMAND)
    assert ran.code == 0
    assert len(configs) == 1
    assert ran.err.count(QUESTION) == 1
    assert QUESTION not in ran.out


@pytest.mark.parametrize("answer", ["\n", "n\n", "no\n", "yep\n", "ja\n", ""])
def test_anything_else_sends_nothing(call, configs, asked, answer):
    """Exit code 2, a sentence that says so, and the command that was given; also at the end."""
    asked.append(answer)
    ran = call(COMMAND)
    assert (ran.code, ran.out, configs) == (2, "", [])
    said = ran.err.partition(QUESTION)[2].split()
    assert "Nothing was sent." in " ".join(said)
    assert f"bulk-updater {COMMAND}" in " ".join(said)


@pytest.mark.usefixtures("configs")
def test_what_is_said(call, asked):
    """Requests, instance, pace, time and target, before the question; no cell of a row."""
    asked.append("n\n")
    err = call(COMMAND).err
    told = err.partition(QUESTION)[0]
    assert told == (
        "About to send to http://127.0.0.1:9, account not known, region of the profile:\n"
        "  2 requests of UpdateContactAttributes\n"
        f"    instance: {INSTANCE}\n"
        "    not sent: 1 row skipped, 2 invalid\n"
        "    pace: at most 5/s, as --rate says\n"
        "  It takes 0.4 s.\n"
        "  Rows that are settled already are not sent again.\n"
    )


def test_without_a_terminal_nobody_is_asked(call, configs, tmp_path):
    """Exit code 2, nothing is read and nothing sent: cron cannot answer."""
    (tmp_path / "export.csv").unlink()
    ran = call(COMMAND)
    assert (ran.code, ran.out, configs) == (2, "", [])
    assert "--confirm asks on a terminal, and standard input or standard error is none." in ran.err


@pytest.mark.usefixtures("asked")
def test_a_rehearsal_is_not_asked_about(call, configs):
    """--sandbox sends nothing to AWS, and a plan for it would ask AWS for the quota: refused."""
    ran = call("run mapping.yaml export.csv --sandbox --confirm")
    assert (ran.code, ran.out, configs) == (2, "", [])
    assert "--confirm and --sandbox exclude each other" in ran.err


@pytest.mark.usefixtures("asked")
def test_nothing_to_send_needs_no_answer(call, configs, tmp_path):
    """Where no request would be made the run records its results without a question."""
    (tmp_path / "export.csv").write_text("Contact,Status,Tier,Due\nc-1,open,gold,\n")
    ran = call(COMMAND)
    assert (ran.code, len(configs)) == (0, 1), ran.err
    assert QUESTION not in ran.err


@pytest.mark.usefixtures("configs")
@pytest.mark.parametrize(("n", "shown"), [(1, 1), (3, 3), (4, 3), (40, 3)])
def test_instances_that_rows_name(call, asked, tmp_path, n, shown):
    """Each is named once, in the order of the rows, three at the most, and others are told of."""
    asked.append("n\n")
    (tmp_path / "mapping.yaml").write_text(FROM_ROWS)
    rows = [f"c-{row},i-{row % n:03},gold" for row in range(2 * n)]
    (tmp_path / "export.csv").write_text("\n".join(["Contact,Instance,Tier", *rows, ""]))
    err = call(COMMAND).err
    line = next(line for line in err.splitlines() if "    instance" in line)
    named = ", ".join(f"i-{each:03}" for each in range(shown))
    noun = "instance" if n == 1 else "instances"
    assert line == f"    {noun}: {named}{' and others' if n > shown else ''}"


@pytest.mark.usefixtures("configs")
def test_regions_are_named_in_the_aws_cli_s_order(call, asked, monkeypatch):
    """--region, AWS_REGION, AWS_DEFAULT_REGION, in this order."""
    asked.extend(["n\n"] * 3)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert "region eu-west-3:" in call(COMMAND).err
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert "region eu-west-2:" in call(COMMAND).err
    assert "region eu-west-1:" in call(f"{COMMAND} --region eu-west-1").err


@pytest.mark.usefixtures("asked")
def test_a_run_without_the_flag_asks_nobody(call, configs):
    """No question, whoever sits at the terminal."""
    assert QUESTION not in call(COMMAND.removesuffix(" --confirm")).err
    assert len(configs) == 1
