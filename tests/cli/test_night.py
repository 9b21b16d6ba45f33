"""What a run says to those who are not there: its last line, JSON logs, and how it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import shlex
import signal
import threading
import warnings

import pytest

from bulk_updater import errors
from bulk_updater.cli import night
from bulk_updater.cli.going_on import command_to_go_on
from bulk_updater.cli.output import format_summary
from bulk_updater.errors import BulkUpdaterError, LedgerLocked, RunStopped, UsageError
from bulk_updater.model import Outcome

from .conftest import summary_of

RUN = "run mapping.yaml export.csv"
RESUME = f"bulk-updater {RUN} --resumed"
ERRORS = sorted(
    (
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, BulkUpdaterError)
    ),
    key=lambda each: each.__name__,
)


@pytest.fixture
def notified(call, ends_with, posted):
    """Runs a command to its end with a notification; returns its code and what was posted."""

    def run(words, end):
        ends_with(end)
        return call(f"{words} --notify https://h/x").code, [told for _, told in posted]

    return run


@pytest.fixture
def posted(monkeypatch):
    """What is posted, and where to; nothing leaves the process."""
    seen = []
    monkeypatch.setattr(night, "notify", lambda url, told: seen.append((url, told)))
    return seen


def error_of(cls: type[BulkUpdaterError]) -> BulkUpdaterError:
    """An error of a class, whatever its arguments are."""
    error = cls.__new__(cls)
    Exception.__init__(error, "What is wrong, where, and what to do.")
    if isinstance(error, RunStopped):
        error.summary = summary_of(
            state="stopped", reason=error.message, unsettled=1, resume=RESUME
        )
    return error


def leave(code: int = 130) -> None:
    raise SystemExit(code)


def fields_of(line: str) -> dict[str, str]:
    assert line.startswith("summary ")
    return dict(word.split("=", 1) for word in shlex.split(line)[1:])


def last_line_of(err: str) -> dict[str, str]:
    """The summary line, which is the last and the only one."""
    lines = err.splitlines()
    assert sum(line.startswith("summary ") for line in lines) == 1
    return fields_of(lines[-1])


# --- The last line ----------------------------------------------------------------------------


def test_the_last_line_holds_the_whole_summary(call, ends_with):
    """One line of key=value: state, exit code, run, rows, every outcome, where the ledger is."""
    summary = summary_of(throttled=2)
    ends_with(summary)
    assert last_line_of(call(RUN).err) == {
        "state": "finished",
        "exit": "0",
        "run_id": "20260301T080000Z-abcdef",
        "rows": "4",
        **{outcome.lower(): str(number) for outcome, number in summary.outcomes.items()},
        "unsettled": "0",
        "attempts": "3",
        "throttled": "2",
        "seconds": "7.4",
        "ledger": "runs/mapping/export-0123456789ab/ledger.jsonl",
    }


@pytest.mark.parametrize(
    ("state", "outcomes", "code"),
    [
        ("finished", {}, 0),
        ("finished", {"FAILED": 1}, 1),
        ("stopped", {}, 3),
        ("deadline", {}, 4),
        ("interrupted", {}, 130),
    ],
)
def test_the_last_line_names_state_and_exit_code(call, ends_with, state, outcomes, code):
    """Whatever the summary says, with its exit code."""
    ends_with(summary_of(state=state, outcomes=outcomes))
    ran = call(RUN)
    found = last_line_of(ran.err)
    assert (ran.code, found["state"], found["exit"]) == (code, state, str(code))


@pytest.mark.parametrize(
    ("words", "end", "said"),
    [
        (f"{RUN} --rate 0", None, ("refused", "usage", 2)),
        (f"{RUN} --frobnicate", None, ("refused", "usage", 2)),
        ("run", None, ("refused", "usage", 2)),
        (RUN, error_of(LedgerLocked), ("refused", "ledger-locked", 2)),
        (RUN, error_of(errors.SourceError), ("refused", "source", 2)),
        (RUN, KeyError("x"), ("fault", "fault", 3)),
    ],
)
def test_there_is_a_last_line_without_a_summary(call, ends_with, words, end, said):
    """Mistakes, a lock and a fault have theirs, with the error's slug."""
    ends_with(end)
    ran = call(words)
    found = last_line_of(ran.err)
    assert (found["state"], found["error"], ran.code) == said
    assert found["exit"] == str(ran.code)


def test_a_fault_in_the_middle_counts_what_is_known(call, monkeypatch):
    """Without a summary, the last line has what the run had counted until then."""

    async def pipeline(_config, *, progress, **_):
        progress.results_total = 10
        progress.count(Outcome.UPDATED, 4)
        progress.sent, progress.throttled = 6, 2
        raise KeyError("x")

    monkeypatch.setattr("bulk_updater.cli.run.run_pipeline", pipeline)
    found = last_line_of(call(RUN).err)
    assert (found["updated"], found["unsettled"]) == ("4", "6")
    assert (found["attempts"], found["throttled"]) == ("6", "2")


@pytest.mark.parametrize("value", ["", "two words", 'a "quote"', "a=b", "back\\slash", "line\nend"])
def test_values_that_are_no_words_stand_in_quotes(value):
    """The line stays one line, and its keys can be told apart."""
    line = format_summary({"state": "finished", "ledger": value})
    assert line.count("\n") == 1
    assert json.loads(line.partition("ledger=")[2]) == value


@pytest.mark.parametrize("words", ["plan mapping.yaml export.csv --rate 5", "skeleton x", "--help"])
def test_other_commands_have_no_last_line(call, words):
    """It tells of runs."""
    assert "summary state=" not in call(words).err


# --- How it goes on ---------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ERRORS)
@pytest.mark.parametrize("as_json", ["", " --json"])
def test_every_error_ends_with_the_command_that_goes_on(call, ends_with, cls, as_json):
    """Whatever class it is: error, the command to be copied, and the last line below it."""
    ends_with(error_of(cls))
    words = RUN + as_json
    error, go_on, _ = call(words).err.splitlines()
    assert error == "error: What is wrong, where, and what to do."
    mended = "To go on, once that is mended:" if issubclass(cls, UsageError) else "To go on:"
    command = RESUME if cls is RunStopped else f"bulk-updater {words}"
    assert go_on == f"{mended} {command}"


@pytest.mark.parametrize("flags", ["--rate 0", "--frobnicate", "--notify ftp://x", "--limit 0"])
def test_a_mistake_ends_with_the_command_as_it_was_typed(call, configs, flags):
    """To be mended and given again; quotes are kept."""
    ran = call(f"{RUN} 'my export.csv' {flags}")
    assert ran.err.splitlines()[-2] == (
        f"To go on, once that is mended: bulk-updater {RUN} 'my export.csv' {flags}"
    )
    assert configs == []


@pytest.mark.parametrize("end", [KeyboardInterrupt(), KeyError("x")])
def test_interruptions_and_faults_end_with_the_command(call, ends_with, end):
    """Also what is no error of ours."""
    ends_with(end)
    assert call(RUN).err.splitlines()[-2] == f"To go on: bulk-updater {RUN}"


@pytest.mark.parametrize("state", ["interrupted", "deadline"])
def test_a_run_with_rows_left_says_how_it_goes_on(call, ends_with, state):
    """On standard error, too: with --json nobody reads the other."""
    ends_with(summary_of(state=state, unsettled=1, resume=RESUME))
    lines = call(f"{RUN} --json").err.splitlines()
    assert lines[-2].endswith(f", with 1 result to go. To go on: {RESUME}")


@pytest.mark.parametrize("state", ["stopped", "interrupted", "deadline"])
def test_the_command_is_not_repeated_on_one_terminal(call, ends_with, monkeypatch, state):
    """Where both streams are on a terminal the summary ends with it, and the error does not."""
    monkeypatch.setattr(night, "is_in_sight", lambda **_: True)
    ends_with(summary_of(state=state, reason="Why.", unsettled=1, resume=RESUME))
    ran = call(RUN)
    assert ran.out.endswith(f"\nTo go on:\n{RESUME}\n")
    assert "To go on" not in ran.err


@pytest.mark.parametrize(
    ("out", "err", "as_json", "logs", "in_sight"),
    [
        (True, True, False, "text", True),
        (False, True, False, "text", False),
        (True, False, False, "text", False),
        (True, True, True, "text", False),
        (True, True, False, "json", False),
    ],
)
def test_what_is_in_sight(monkeypatch, out, err, as_json, logs, in_sight):  # noqa: PLR0917
    """Both streams on a terminal, and text on both."""
    night.set_log_format(logs)
    monkeypatch.setattr("sys.stdout.isatty", lambda: out)
    monkeypatch.setattr("sys.stderr.isatty", lambda: err)
    assert night.is_in_sight(as_json=as_json) is in_sight


def test_a_run_that_went_well_has_nothing_to_go_on_with(call, ends_with):
    """No such sentence, be there bad rows or not."""
    for failed in (0, 1):
        ends_with(summary_of(outcomes={"FAILED": failed}))
        assert "To go on" not in call(RUN).err


@pytest.mark.parametrize(
    ("words", "public"),
    [
        ("--fresh --rate 5", "--rate 5"),
        ("--endpoint-url https://me:pw@h/x", "--endpoint-url 'https://***@h/x'"),
        ("--endpoint-url=https://me:pw@h/x", "'--endpoint-url=https://***@h/x'"),
        ("--notify https://h/path --rate 5", "--notify https://h/path --rate 5"),
        ("--notify https://h/?token=pw --rate 5", "--rate 5"),
        ("--notify=https://h/?token=pw --rate 5", "--rate 5"),
        ("--notify https://me:pw@h/ --rate 5", "--rate 5"),
        ("--notify 'https://[pw' --rate 5", "--rate 5"),
        ("me@example.csv", "me@example.csv"),
    ],
)
def test_the_command_holds_no_secret(words, public):
    """A notification that would is left out; a name and password in another URL are masked."""
    made = command_to_go_on(["bulk-updater", "run", *shlex.split(words)])
    assert made == f"bulk-updater run {public}"


# --- The summary on standard output ------------------------------------------------------------


def test_outcomes_that_most_runs_cannot_have_are_shown_where_there_are_any(call, ends_with):
    """UNCHANGED and SUPERSEDED beside the four that every run counts, and not at 0."""
    ends_with(summary_of(outcomes={"UNCHANGED": 0, "SUPERSEDED": 0}))
    ran = call(RUN)
    assert "\n  SKIPPED  1\n\n" in ran.out
    ends_with(summary_of(outcomes={"UNCHANGED": 1200, "SUPERSEDED": 0}))
    ran = call(RUN)
    assert "\n  UNCHANGED  1,200\n\n" in ran.out
    assert "SUPERSEDED" not in ran.out


def test_a_deadline_is_no_interruption(call, ends_with):
    """The headline says what it was, and how much is left."""
    ends_with(summary_of(state="deadline", unsettled=2, resume=RESUME))
    assert call(RUN).out.startswith("The deadline came after 7 s, with 2 results to go.\n")


# --- JSON -------------------------------------------------------------------------------------


def lines_of(err: str) -> list[dict]:
    """Every line is an object with the five keys; a line that is not would fail here."""
    lines = [json.loads(line) for line in err.splitlines()]
    for line in lines:
        assert {"time", "level", "message", "run_id", "logger"} <= line.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert isinstance(line["message"], str)
    return lines


@pytest.mark.parametrize("cls", ERRORS)
def test_json_logs_hold_errors_and_the_last_line(call, ends_with, cls):
    """With --log-format json nothing but JSON lines is on standard error, whatever goes wrong."""
    ends_with(error_of(cls))
    words = f"{RUN} --log-format json"
    error, last = lines_of(call(words).err)
    assert error["level"] == "ERROR"
    assert error["message"].endswith(error["command_to_go_on"])
    assert error["command_to_go_on"] == (RESUME if cls is RunStopped else f"bulk-updater {words}")
    assert last["summary"].keys() >= {"state", "exit", "seconds"}
    assert fields_of(last["message"])["exit"] == str(last["summary"]["exit"])


@pytest.mark.parametrize(
    "words",
    [
        f"{RUN} --rate 0 --log-format json",
        f"{RUN} --log-format json --frobnicate",
        "run --log-format=json",
        "plan mapping.yaml nowhere.csv --log-format json --rate 5",
        "plan --log-format json --frobnicate",
    ],
)
def test_mistakes_are_json_too(call, words):
    """Wherever the flag stands, and whatever is wrong with the others."""
    ran = call(words)
    assert ran.code == 2
    assert lines_of(ran.err)[0]["level"] == "ERROR"


def test_the_environment_asks_for_json(call, monkeypatch):
    """BULK_UPDATER_RUN_LOG_FORMAT is heard before a mistake is told."""
    monkeypatch.setenv("BULK_UPDATER_RUN_LOG_FORMAT", "json")
    assert len(lines_of(call(f"{RUN} --frobnicate").err)) == 2


def test_each_line_has_the_run_s_id_once_it_is_known(call, monkeypatch):
    """Null before the run directory is open, and in every line from there to the last."""

    async def pipeline(_config, *, progress, **_):
        log = logging.getLogger("bulk_updater.x")
        log.info("before")
        progress.run_id = "20260301T080000Z-abcdef"
        log.warning("after %s", "that")
        return summary_of()

    monkeypatch.setattr("bulk_updater.cli.run.run_pipeline", pipeline)
    before, after, last = lines_of(call(f"{RUN} --log-format json").err)
    assert (before["message"], before["run_id"], before["level"]) == ("before", None, "INFO")
    assert after["message"] == "after that"
    assert after["run_id"] == last["run_id"] == "20260301T080000Z-abcdef"
    assert (after["logger"], after["level"]) == ("bulk_updater.x", "WARNING")


def test_what_libraries_warn_of_is_json(call, monkeypatch):
    """A logger without a handler and a Python warning, too; the next command has them as before."""

    async def pipeline(_config, **_):
        logging.getLogger("somebody.else").warning("theirs")
        warnings.warn("odd", RuntimeWarning, stacklevel=1)
        return summary_of()

    monkeypatch.setattr("bulk_updater.cli.run.run_pipeline", pipeline)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    warnings.simplefilter("always")
    theirs, odd, _ = lines_of(call(f"{RUN} --log-format json").err)
    assert (theirs["message"], theirs["logger"]) == ("theirs", "somebody.else")
    assert "RuntimeWarning: odd" in odd["message"]
    with pytest.warns(RuntimeWarning, match="odd"):
        assert "\ntheirs\n" in "\n" + call(RUN).err


def test_a_path_that_is_no_text_is_logged_all_the_same(call, ends_with):
    """Bytes that no encoding knows are escaped; the line stays one JSON object."""
    ends_with(errors.SourceError("no such file.", source="odd\udcff.csv"))
    error, _ = lines_of(call(f"{RUN} --log-format json").err)
    assert error["message"].startswith("odd\udcff.csv: no such file.")


def test_json_logs_and_json_output_are_told_apart(call, ends_with):
    """--json is for standard output, --log-format for standard error; one needs no other."""
    ends_with(summary_of())
    text = call(f"{RUN} --log-format json")
    assert text.out.startswith("Finished in 7 s")
    both = call(f"{RUN} --log-format json --json")
    assert json.loads(both.out)["state"] == "finished"
    assert len(lines_of(both.err)) == 1


def test_json_logs_draw_no_bar(call, monkeypatch, ends_with):
    """Not even on a terminal."""
    told = []

    def show(_progress, *, quiet):
        told.append(quiet)
        return contextlib.nullcontext()

    monkeypatch.setattr("bulk_updater.cli.run.show_progress", show)
    ends_with(summary_of())
    for flags in ("", " --log-format json", " --json"):
        call(RUN + flags)
    assert told == [False, True, True]


# --- Notifications ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "code", "n"),
    [
        ("", 0, 0),
        ("", 1, 1),
        ("--notify-on failure", 0, 0),
        ("--notify-on failure", 4, 1),
        ("--notify-on always", 0, 1),
        ("--notify-on always", 3, 1),
        ("--notify-on never", 3, 0),
    ],
)
def test_who_is_notified_when(notified, when, code, n):
    """By default at every end but 0."""
    ends = {0: "finished", 1: "finished", 3: "stopped", 4: "deadline"}
    end = summary_of(state=ends[code], outcomes={"FAILED": int(code == 1)})
    ended, told = notified(f"{RUN} {when}", end)
    assert (ended, len(told)) == (code, n)


def test_a_notification_tells_everything_that_is_needed(call, ends_with, posted):
    """The summary's members, and code, message, host, job, version and how it goes on."""
    summary = summary_of(state="stopped", reason="No permission.", unsettled=9, resume=RESUME)
    ends_with(RunStopped("No permission.", summary=summary))
    call(f"{RUN} --notify https://h/x")
    ((url, told),) = posted
    assert url == "https://h/x"
    assert told["outcomes"] == summary.outcomes
    assert (told["state"], told["exit_code"], told["unsettled"]) == ("stopped", 3, 9)
    assert (told["message"], told["command_to_go_on"]) == ("No permission.", RESUME)
    assert told["run_id"] == "20260301T080000Z-abcdef"
    assert told["job"] == "mapping"
    assert told["host"]
    assert told["version"]
    assert json.loads(json.dumps(told)) == json.loads(json.dumps(told, default=str))


@pytest.mark.parametrize(
    ("words", "end", "says"),
    [
        (f"{RUN} --rate 0", None, "no rate"),
        (f"{RUN} --frobnicate", None, "No such option"),
        (RUN, error_of(LedgerLocked), "What is wrong"),
        (RUN, KeyboardInterrupt(), "Interrupted."),
        (RUN, KeyError("secret"), "This is a fault in bulk_updater (KeyError"),
    ],
)
def test_what_has_no_summary_is_notified_too(notified, words, end, says):
    """Mistakes, a lock, interruptions and faults, with the message that standard error has."""
    code, (told,) = notified(words, end)
    assert says in told["message"]
    assert "secret" not in told["message"]
    assert (told["exit_code"], told["run_id"], told["ledger"]) == (code, None, None)
    assert told["command_to_go_on"] == f"bulk-updater {words} --notify https://h/x"


def test_the_environment_names_the_url(call, posted, monkeypatch):
    """BULK_UPDATER_RUN_NOTIFY is heard, also where a flag is wrong, and stands in no command."""
    monkeypatch.setenv("BULK_UPDATER_RUN_NOTIFY", "https://me:pw@h/x?token=1")
    ran = call(f"{RUN} --rate 0")
    assert posted[0][0] == "https://me:pw@h/x?token=1"
    assert "pw" not in ran.err + json.dumps(posted[0][1])
    assert "token" not in ran.err + json.dumps(posted[0][1])


@pytest.mark.parametrize(
    "url", ["ftp://h/x", "https://", "h/x", "https://h:port/pw", "https://[pw", "https://h/p w", ""]
)
def test_what_nothing_can_be_posted_to_is_refused(call, configs, posted, url):
    """Exit code 2 before anything is sent; the message does not repeat it."""
    ran = call(f"{RUN} --notify '{url}'")
    assert (ran.code, configs, posted) == (2, [], [])
    assert ran.err.startswith(
        "error: --notify takes a URL that begins with https:// or http:// and names a host.\n"
    )


def test_a_notification_that_hangs_is_left(call, ends_with, monkeypatch):
    """One warning, and the exit code that there would have been."""
    never = threading.Event()
    monkeypatch.setattr(night, "notify", lambda *_: never.wait())
    monkeypatch.setattr(night, "NOTIFY_S", 0.01)
    ends_with(summary_of(outcomes={"FAILED": 1}))
    ran = call(f"{RUN} --notify https://me:pw@h/x")
    never.set()
    assert ran.code == 1
    assert ran.err.count("WARNING") == 1
    assert "The notification to https://h did not end within 0.01 s; it is left." in ran.err
    assert "pw" not in ran.err
    assert last_line_of(ran.err)["exit"] == "1"


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_notification_that_fails_changes_nothing(call, ends_with, monkeypatch, code):
    """Not even a fault of ours in posting does; it is a warning without foreign text."""

    def fail(*_):
        raise KeyError("pw")

    monkeypatch.setattr(night, "notify", fail)
    state = "stopped" if code == 3 else "finished"
    ends_with(summary_of(state=state, outcomes={"FAILED": int(code == 1)}))
    ran = call(f"{RUN} --notify https://h/x --notify-on always")
    assert ran.code == code
    assert "The notification to https://h failed (KeyError)." in ran.err
    assert "pw" not in ran.err


@pytest.mark.parametrize("code", [0, 1])
def test_a_fault_in_telling_changes_nothing(call, ends_with, monkeypatch, posted, code):
    """One warning; the exit code and the last line are what they would have been."""
    monkeypatch.setattr("socket.gethostname", lambda: 1 // 0)
    ends_with(summary_of(outcomes={"FAILED": code}))
    ran = call(f"{RUN} --notify https://h/x --notify-on always")
    assert (ran.code, posted) == (code, [])
    assert "The end could not be told to all (ZeroDivisionError)." in ran.err
    assert last_line_of(ran.err)["exit"] == str(code)


def test_the_end_is_told_once(call, ends_with, posted):
    """However often it is said that the command has ended."""
    ends_with(summary_of(outcomes={"FAILED": 1}))
    ran = call(f"{RUN} --notify https://h/x")
    night.end_night(1)
    night.last_words(1)
    assert len(posted) == 1
    last_line_of(ran.err)


def test_who_leaves_at_once_leaves_the_last_line(call, monkeypatch):
    """`last_words` tells how far it was, and posts nothing."""

    async def pipeline(_config, *, progress, **_):
        progress.results_total = 9
        night.last_words(130)
        raise asyncio.CancelledError

    monkeypatch.setattr("bulk_updater.cli.run.run_pipeline", pipeline)
    monkeypatch.setattr("bulk_updater.cli.run.leave", leave)
    ran = call(RUN)
    lines = [line for line in ran.err.splitlines() if line.startswith("summary ")]
    assert [fields_of(line)["unsettled"] for line in lines] == ["9"]


def test_the_second_signal_is_told(call, monkeypatch, posted):
    """A run that is cancelled has its last line and its notification before the process is left."""

    async def pipeline(_config, *, progress, **_):
        progress.results_total = 9
        raise asyncio.CancelledError

    monkeypatch.setattr("bulk_updater.cli.run.run_pipeline", pipeline)
    monkeypatch.setattr("bulk_updater.cli.run.leave", leave)
    ran = call(f"{RUN} --notify https://h/x")
    assert ran.code == 130, ran.err
    assert posted[0][1]["message"].startswith("Interrupted.")
    assert last_line_of(ran.err)["state"] == "interrupted"
    assert ran.err.splitlines()[-2] == f"To go on: bulk-updater {RUN} --notify https://h/x"


def test_a_signal_before_the_run_has_its_last_line(call, monkeypatch):
    """One that comes while flags are looked at ends the process with both lines, to be parsed."""
    left, written = [], []
    monkeypatch.setattr("os._exit", left.append)
    monkeypatch.setattr("os.write", lambda number, line: written.append((number, line)))

    def begin(*_, **__):
        signal.raise_signal(signal.SIGTERM)
        raise SystemExit(left[0])

    monkeypatch.setattr("bulk_updater.cli.run.make_run_config", begin)
    assert call(f"{RUN} --log-format json").code == 130
    ((number, said),) = written
    error, last = lines_of(said.decode())
    assert number == 2
    assert error["message"].startswith("Interrupted.")
    assert (last["summary"]["state"], last["summary"]["exit"]) == ("interrupted", 130)
