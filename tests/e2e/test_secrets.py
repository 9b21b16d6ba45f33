"""Nothing that is written holds a cell or a secret, whatever becomes of the rows and of the run.

A marker stands in every cell that can hold one, and in everything of the environment that is
secret. All that commands print and all the files that they leave are searched for them. Two places
show cells, as documented: `failed.csv`, and the one request that a plan shows.
"""

from __future__ import annotations

import contextlib
import json
import signal
import stat
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from .processes import INSTANCE, Ran, Served, Shell, Warm, environment, ledger_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CELL = "CELL7f3a"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "SECRETkeyid7f3a",
    "AWS_SECRET_ACCESS_KEY": "SECRETkey7f3a",
    "AWS_SESSION_TOKEN": "SECRETtoken7f3a",
    "CRM_PASSWORD": "SECRETother7f3a",
}
PROXY = {"HTTPS_PROXY": "http://SECRETuser7f3a:SECRETproxy7f3a@127.0.0.1:9"}
MARKERS = (CELL, "SECRET")

MAPPING = f"""
source:
  where:
    - {{column: Status, not: "left out {CELL}"}}
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    note: {{column: Note}}
    due: {{column: Due, date: "%d/%m/%Y", format: "%Y-%m-%d"}}
    tier: {{column: Tier, map: {{A: high, B: mid}}}}
    must: {{column: Must, empty: reject}}
    "*": {{prefix: crm_, except: [Contact, Status, Note, Due, Tier, Must, Days, Type, Arn]}}
update_contact:
  InstanceId: {INSTANCE}
  ContactId: "{{Contact}}"
  Name: "{{Note}}"
  Description: "{{Extra}}"
  References:
    crm: {{Type: "{{Type}}", Value: "{{Note}}", Arn: "{{Arn}}"}}
  SegmentAttributes:
    "connect:ContactExpiry": {{ValueMap: {{ExpiryDuration: {{ValueInteger: "{{Days}}"}}}}}}
"""
# The mapping's own text may be quoted; its one marker is taken out of what is searched for.
MAPPING = MAPPING.replace(f" {CELL}", "")

HEADER = "Contact,Status,Note,Due,Tier,Must,Days,Type,Arn,Extra"


def row_of(contact: str, **cells: str) -> str:
    """One row, with a marker wherever the column takes any text."""
    known = {
        "Contact": contact,
        "Status": f"done {CELL}",
        "Note": f"{CELL} {contact}",
        "Due": "01/02/2026",
        "Tier": "A",
        "Must": f"{CELL} {contact} must",
        "Days": "7",
        "Type": "STRING",
        "Arn": "",
        "Extra": f"{CELL} {contact} extra",
    }
    return ",".join((known | cells).values())


INVALID = {
    "date": row_of("bad-date", Due=f"{CELL}/02/2026"),
    "map": row_of("bad-map", Tier=CELL),
    "reject": row_of("bad-reject", Must=""),
    "long attribute": row_of("bad-long", Note=CELL * 5000),
    "long name": row_of("bad-name", Note=CELL * 200),
    "integer": row_of("bad-integer", Days=CELL),
    "range": row_of("bad-range", Days="9" * 40 + CELL),
    "unknown type": row_of("odd-type", Type=CELL),
    "pattern": row_of("bad-arn", Arn=f"{CELL} has blanks and more"),
    "references": row_of("bad-references", Note=CELL * 511, Extra=CELL * 600),
    "no contact": row_of("", Note=CELL),
    "long contact": row_of("x" * 300),
    "short": f"short,{CELL},{CELL}",
    "long row": row_of("long-row") + f",{CELL},{CELL}",
    "quote": row_of("bad-quote", Note=f'"{CELL}"{CELL}'),
}
FAILED = [row_of(f"missing-{number}") for number in range(4)]


def export(n_good: int) -> bytes:
    """Good rows, then every way to fail and to be invalid, and at the end what is no text."""
    rows = [row_of(f"good-{number}") for number in range(n_good)]
    rows += [row_of("left-out", Status="left out"), *FAILED, *INVALID.values()]
    undecodable = row_of("undecodable").encode().replace(CELL.encode(), CELL.encode() + b"\xff", 1)
    nothing = row_of("nul", Note=f"{CELL}\0{CELL}").encode()
    unclosed = row_of("unclosed", Note=f'"{CELL}').encode()
    lines = [HEADER.encode(), *(row.encode() for row in rows), undecodable, nothing, unclosed]
    return b"\n".join(lines) + b"\n"


@dataclass
class Written:
    """What commands printed, by what was typed, and the folder they worked in."""

    folder: Path
    printed: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, ran: Ran) -> Ran:
        self.printed[what] = ran.out + ran.err
        self.codes[what] = ran.code
        return ran

    def texts(self) -> Iterator[tuple[str, str]]:
        """Everything that may be passed on, by its name."""
        yield from self.printed.items()
        for path in sorted(self.folder.rglob("*")):
            if path.is_dir() or path.name in {"failed.csv", "export.csv", "mapping.yaml"}:
                continue
            if path.suffix == ".parquet":
                yield path.name, str(pq.read_table(path).to_pylist())
            else:
                yield str(path.relative_to(self.folder)), path.read_bytes().decode(errors="replace")


class MarkedShell(Shell):
    """Starts everything in an environment full of secrets."""

    def start(self, *words: str | Path, env: Mapping[str, str] | None = None, **settings):
        return super().start(*words, env=environment(**SECRETS) if env is None else env, **settings)


def without_example(text: str) -> str:
    """A plan, but for the request that it shows."""
    kept, inside = [], False
    for line in text.splitlines():
        if line.startswith("First request, for aws connect"):
            inside = True
        elif inside and line == "}":
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Iterator[Written]:
    """Every command, with every end that it may come to."""
    with contextlib.closing(MarkedShell(tmp_path_factory.mktemp("secrets-sandbox"))) as shell:
        sandbox = Served(shell, "--rate", "100000", "--burst", "100000", "--latency-ms", "5")
        made = Written(tmp_path_factory.mktemp("secrets"))
        plans(made, warm, sandbox.url)
        runs(made, warm, sandbox.url)
        stopped_runs(made, warm, sandbox.url)
        interrupted_run(made, sandbox)
        ledgers(made, warm)
        yield made


def give(made: Written, warm: Warm, what: str, *words: str, **changes: str) -> Ran:
    env = environment(**SECRETS, **changes)
    return made.note(what, warm.run(made.folder, *words, env=env))


def plans(made: Written, warm: Warm, url: str) -> None:
    (made.folder / "mapping.yaml").write_text(MAPPING)
    (made.folder / "export.csv").write_bytes(export(20))
    job = ("plan", "mapping.yaml", "export.csv", "--debug", "--endpoint-url", url)
    plan = give(made, warm, "plan", *job)
    assert CELL in plan.out  # the one request that it shows
    made.printed["plan"] = without_example(plan.out) + plan.err
    as_json = give(made, warm, "plan --json", *job, "--json")
    shown = json.loads(as_json.out)
    for operation in shown["operations"]:
        assert CELL in str(operation.pop("example"))
    made.printed["plan --json"] = json.dumps(shown) + as_json.err


def runs(made: Written, warm: Warm, url: str) -> None:
    job = ("run", "mapping.yaml", "export.csv", "--debug", "--endpoint-url", url)
    ends = ("--run-dir", "ended")
    give(made, warm, "run, bad rows", *job, *ends, "--rate", "auto", "--color", "on")
    give(made, warm, "run, again", *job, *ends, "--json")
    # A torn end, as a power cut leaves it, and the copy that is kept of it.
    ledger = made.folder / "ended" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-40])
    give(made, warm, "run, torn", *job, *ends)
    give(made, warm, "run, fresh", *job, *ends, "--fresh", "--quota-file", "quotas.json")


def stopped_runs(made: Written, warm: Warm, url: str) -> None:
    job = ("run", "mapping.yaml", "export.csv", "--debug")
    here = ("--endpoint-url", url)
    wrong = {"AWS_SECRET_ACCESS_KEY": "SECRETwrong7f3a"}
    env = environment(**(SECRETS | wrong))
    stopped = warm.run(made.folder, *job, *here, "--run-dir", "wrong", env=env)
    made.note("run, wrong secret", stopped)
    give(made, warm, "run, wrong secret, again", *job, *here, "--run-dir", "wrong")
    failing = ("--max-failures", "2", "--run-dir", "failing")
    give(made, warm, "run, breaker", *job, *here, *failing)
    beyond = ("--endpoint-url", "https://connect.invalid", "--cli-connect-timeout", "1")
    few = ("--max-attempts", "1", "--run-dir", "proxy")
    give(made, warm, "run, proxy", *job, *beyond, *few, **PROXY)
    with_password = url.replace("http://", "http://SECRETname7f3a:SECRETpassword7f3a@")
    give(made, warm, "run, URL", *job, "--endpoint-url", with_password)
    give(made, warm, "plan, URL", "plan", *job[1:], "--endpoint-url", with_password)
    give(made, warm, "run, bad URL", *job, "--endpoint-url", with_password + ":x")
    give(made, warm, "run, environment's URL", *job, AWS_ENDPOINT_URL=with_password)


def interrupted_run(made: Written, sandbox: Served) -> None:
    (made.folder / "export.csv").write_bytes(export(600))
    words = ("run", "mapping.yaml", "export.csv", "--debug", "--endpoint-url", sandbox.url)
    with contextlib.closing(MarkedShell(made.folder)) as shell:
        # The most that a umask can allow: what is private is so by itself.
        umask = ("sh", "-c", 'umask 000; exec "$@"', "sh", sys.executable, "-m", "bulk_updater")
        started = shell.start(*words, "--rate", "100", argv=umask)
        sandbox.wait_for(30, of=started)
        started.signal(signal.SIGINT)
        made.note("run, interrupted", started.wait())
        made.note("run, resumed", shell.run(*words, argv=umask))


def ledgers(made: Written, warm: Warm) -> None:
    for fmt in ("table", "csv", "json"):
        give(made, warm, f"ledger --format {fmt}", "ledger", "ended", "--format", fmt)
    give(made, warm, "ledger --output", "ledger", "ended", "--output", "results.parquet")
    give(made, warm, "ledger, nobody's", "ledger", "no-such-run")


EXPECTED = {
    "plan": 1,
    "plan --json": 1,
    "run, bad rows": 1,
    "run, again": 1,
    "run, torn": 1,
    "run, fresh": 1,
    "run, wrong secret": 3,
    "run, wrong secret, again": 1,
    "run, breaker": 3,
    "run, proxy": 3,
    "run, URL": 2,
    "plan, URL": 2,
    "run, bad URL": 2,
    "run, environment's URL": 2,
    "run, interrupted": 130,
    "run, resumed": 1,
    "ledger --format table": 0,
    "ledger --format csv": 0,
    "ledger --format json": 0,
    "ledger --output": 0,
    "ledger, nobody's": 2,
}


def test_every_end_was_come_to(written):
    """Each command ended as it was meant to, so that what is searched is what it says it is."""
    assert written.codes == EXPECTED
    searched = [name.rpartition("/")[2] for name, _ in written.texts()]
    for name in ("ledger.jsonl", "run.json"):
        assert searched.count(name) >= 5
    assert any(".torn-" in name for name in searched)
    assert "results.parquet" in searched


def test_every_way_to_be_invalid_is_among_them(written):
    """The ledger that was searched knows at least a dozen rules, and rows that FAILED."""
    records = ledger_of(written.folder / "ended" / "ledger.jsonl")
    codes = {each["error_code"] for each in records if each["outcome"] == "INVALID"}
    assert len(codes) >= 10, codes
    assert {each["contact_id"] for each in records if each["outcome"] == "FAILED"} >= {
        "missing-0",
        "missing-3",
    }
    assert CELL in (written.folder / "ended" / "failed.csv").read_bytes().decode(errors="replace")


@pytest.mark.parametrize("marker", MARKERS)
def test_nothing_that_is_written_holds_a_marker(written, marker):
    """No output and no file but failed.csv has a cell or a secret in it, not even in part."""
    found = {
        name: text[max(0, text.index(marker) - 60) : text.index(marker) + 40]
        for name, text in written.texts()
        if marker in text
    }
    assert found == {}


def test_failed_csv_holds_cells_and_no_secret(written):
    """What is given back to be mended is the rows, and nothing of the environment."""
    tables = list(written.folder.rglob("failed.csv"))
    assert len(tables) >= 4
    for path in tables:
        assert b"SECRET" not in path.read_bytes()


def test_what_a_run_makes_is_for_its_owner_alone(written):
    """Files 0600 and directories 0700, the parents that it made included, whatever the umask."""
    made = [written.folder / "runs", *(written.folder / "runs").rglob("*")]
    for name in ("ended", "ended.1", "wrong", "failing", "proxy"):
        made += [written.folder / name, *(written.folder / name).rglob("*")]
    modes = {
        str(path.relative_to(written.folder)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in made
        if stat.S_IMODE(path.stat().st_mode) != (0o700 if path.is_dir() else 0o600)
    }
    assert len(made) > 20
    assert modes == {}


EVIL = [
    "!!python/object/apply:os.system ['touch executed']",
    "!!python/object/new:os.system ['touch executed']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object:subprocess.Popen {}",
    "&loop [*loop]",
]


@pytest.mark.parametrize("where", ["whole", "value", "key"])
@pytest.mark.parametrize("evil", EVIL)
def test_a_mapping_makes_no_objects(warm, tmp_path, evil, where):
    """A tag that would run something is refused as a mapping; nothing runs, nothing is written."""
    texts = {
        "whole": evil + "\n",
        "value": MAPPING.replace("InstanceId: ", f"InstanceId: {evil}\n  Other: ", 1),
        "key": MAPPING + f"? {evil}\n: x\n",
    }
    (tmp_path / "mapping.yaml").write_text(texts[where])
    (tmp_path / "export.csv").write_bytes(export(1))
    before = {path.name for path in tmp_path.iterdir()}
    ran = warm.run(tmp_path, "run", "mapping.yaml", "export.csv", "--region", "x")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: mapping.yaml")
    assert ran.error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} - before == {".stdout", ".stderr"}


LENDER = """\
import datetime, json, pathlib, sys
asked = pathlib.Path(sys.argv[1])
asked.write_text(asked.read_text() + "x" if asked.exists() else "x")
if len(asked.read_text()) > 2:
    sys.exit("SECRETanswer7f3a: the log-in has ended")
soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=9)
print(json.dumps({"Version": 1, "AccessKeyId": "SECRETlent7f3a", "SecretAccessKey": "SECRETs7f3a",
                  "SessionToken": "SECRETt7f3a", "Expiration": soon.isoformat()}))
"""


def test_a_lender_that_fails_is_one_line_and_not_quoted(warm, served, tmp_path):
    """botocore would log a traceback with what the lender said; a run says one line of its own."""
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    (tmp_path / "export.csv").write_bytes(export(3))
    (tmp_path / "lender.py").write_text(LENDER)
    lender = f"{sys.executable} {tmp_path / 'lender.py'} {tmp_path / 'asked'}"
    (tmp_path / "aws-config").write_text(f"[default]\ncredential_process = {lender}\n")
    env = environment(AWS_CONFIG_FILE=str(tmp_path / "aws-config"))
    del env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
    words = ("run", "mapping.yaml", "export.csv", "--rate", "50", "--endpoint-url", served.url)
    ran = warm.run(tmp_path, *words, env=env)
    assert ran.code == 3
    (error,) = [line for line in ran.error.splitlines() if not line.startswith("20")]
    assert error.startswith("error: CredentialRetrievalError on one request: the credentials could")
    assert "SECRET" not in ran.out + ran.err
    assert (tmp_path / "asked").read_text() == "xxx"
