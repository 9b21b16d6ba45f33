"""`--notify` from a real process to a real server: one that answers, and all those that do not."""

from __future__ import annotations

import base64
import http.server
import json
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import MAPPING, Served, environment, export_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 60.0
SECRETS = ("user-1", "pw-1", "token-1")


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what is posted; answers what it is told to, or hangs until it is closed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: int | None = 200
        self.location: str | None = None
        self.received: list[dict[str, Any]] = []
        self.arrived = threading.Event()
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{SECRETS[0]}:{SECRETS[1]}@{self.netloc}/hook?key={SECRETS[2]}"

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(
            {"path": self.path, "headers": dict(self.headers), "told": json.loads(body)}
        )
        self.server.arrived.set()
        if self.server.answer is None:
            self.server.closing.wait()
            return
        self.send_response(self.server.answer)
        if self.server.location is not None:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815 - the name that it is called by

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.close()


@pytest.fixture
def refused(warm, shell):
    """Runs a command that is refused, since its source is not there, with a notification."""

    def run(url: str) -> Any:
        shell.write("mapping.yaml", MAPPING)
        words = ("run", "mapping.yaml", "nowhere.csv", "--notify", url)
        ran = warm.run(shell.folder, *words, env=environment(NO_PROXY="*"))
        assert ran.code == 2, ran
        assert ran.err.startswith("error: nowhere.csv: there is no such file")
        assert ran.err.splitlines()[-1].startswith("summary state=refused exit=2 ")
        assert not any(secret in ran.err + ran.out for secret in SECRETS), ran
        return ran

    return run


def test_a_notification_arrives(refused, receiver):
    """One POST of JSON, with the path and query that were given, and the user in its header."""
    ran = refused(receiver.url)
    (post,) = receiver.received
    pair = base64.b64encode(f"{SECRETS[0]}:{SECRETS[1]}".encode()).decode()
    assert post["path"] == f"/hook?key={SECRETS[2]}"
    assert post["headers"]["Authorization"] == f"Basic {pair}"
    assert post["headers"]["Content-Type"] == "application/json"
    assert post["told"]["message"].startswith("nowhere.csv: there is no such file")
    assert (post["told"]["state"], post["told"]["exit_code"]) == ("refused", 2)
    assert post["told"]["host"] == socket.gethostname()
    assert post["told"]["command_to_go_on"].endswith(" run mapping.yaml nowhere.csv")
    assert not any(secret in json.dumps(post["told"]) for secret in SECRETS)
    assert ran.err.count("\n") == 3


@pytest.mark.parametrize("answer", [204, 400, 500, 302, 307])
def test_any_answer_but_yes_is_one_warning(refused, receiver, answer):
    """A redirect is not followed, not even to the same host; 2xx is a yes."""
    receiver.answer = answer
    receiver.location = f"http://localhost:{receiver.server_address[1]}/elsewhere"
    ran = refused(receiver.url)
    assert [post["path"].partition("?")[0] for post in receiver.received] == ["/hook"]
    if answer == 204:
        assert "WARNING" not in ran.err
        return
    assert ran.err.count("WARNING") == 1
    moved = " (redirects are not followed)" if answer in (302, 307) else ""
    assert (
        f"The notification could not be posted to http://{receiver.netloc}: "
        f"it answered {answer}{moved}.\n" in ran.err
    )


def test_nobody_who_listens_is_one_warning(refused):
    """The exit code stays."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        ran = refused(f"http://{SECRETS[0]}:{SECRETS[1]}@127.0.0.1:{port}/?{SECRETS[2]}")
    assert ran.err.count("WARNING") == 1
    assert f"posted to http://127.0.0.1:{port}: Connection refused.\n" in ran.err


def test_what_is_no_http_is_one_warning(refused):
    """Somebody else listens there, who hangs up in the middle of a line."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with server.accept()[0] as connection:
                connection.recv(65_536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=hang_up)
        thread.start()
        ran = refused(f"http://127.0.0.1:{server.getsockname()[1]}/?{SECRETS[2]}")
        thread.join()
    assert ran.err.count("WARNING") == 1
    assert ": BadStatusLine.\n" in ran.err


def test_who_does_not_want_to_wait_for_an_answer_need_not(shell, receiver):
    """A signal while a server hangs ends the process, with the exit code and the last line."""
    receiver.answer = None
    shell.write("mapping.yaml", MAPPING)
    started = shell.start(
        *("run", "mapping.yaml", "nowhere.csv", "--notify", receiver.url, "--log-format", "json"),
        env=environment(NO_PROXY="*"),
    )
    assert receiver.arrived.wait(PATIENCE_S)
    started.signal(signal.SIGTERM)
    ran = started.wait()
    assert ran.code == 2
    error, last = (json.loads(line) for line in ran.err.splitlines())
    assert error["level"] == "ERROR"
    assert (last["summary"]["state"], last["summary"]["exit"]) == ("refused", 2)


@pytest.fixture
def slow(shell):
    return Served(shell, "--rate", "100000", "--burst", "100000", "--latency-ms", "600000")


def test_an_interruption_is_told_and_a_third_signal_leaves(shell, slow, receiver):
    """The second signal posts how far it was; the third does not wait for the answer."""
    receiver.answer = None
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(5, 5))
    started = shell.start(
        *("run", "mapping.yaml", "export.csv", "--endpoint-url", slow.url),
        env=environment(NO_PROXY="*", BULK_UPDATER_RUN_NOTIFY=receiver.url),
    )
    slow.wait_for(1, of=started)
    started.signal(signal.SIGINT)
    started.read_until("Once more to stop at once.", "err")
    started.signal(signal.SIGINT)
    assert receiver.arrived.wait(PATIENCE_S)
    started.signal(signal.SIGINT)
    ran = started.wait()
    assert ran.code == 130
    assert ran.err.splitlines()[-1].startswith("summary state=interrupted exit=130 ")
    assert not any(secret in ran.err + ran.out for secret in SECRETS)
    ((told),) = [post["told"] for post in receiver.received]
    assert (told["state"], told["exit_code"]) == ("interrupted", 130)
    assert told["message"].startswith("Interrupted.")
    command = f"{sys.executable} -m bulk_updater run mapping.yaml export.csv"
    assert told["command_to_go_on"].startswith(command)


def test_a_whole_run_is_told(shell, warm, served, receiver):
    """Every figure of the summary, as it stands in run.json, which holds no secret either."""
    shell.write("mapping.yaml", MAPPING)
    shell.write("export.csv", export_of(20, 20, "told-"))
    ran = warm.run(
        shell.folder,
        *("run", "mapping.yaml", "export.csv", "--endpoint-url", served.url, "--rate", "1000"),
        *("--run-dir", "run", "--notify", receiver.url, "--notify-on", "always"),
        *("--metrics-file", "bulk.prom", "--log-format", "json"),
        env=environment(NO_PROXY="*"),
    )
    assert ran.code == 0, ran
    lines = [json.loads(line) for line in ran.err.splitlines()]
    summary = lines[-1]["summary"]
    assert (summary["updated"], summary["rows"], summary["exit"]) == (20, 20, 0)
    (post,) = receiver.received
    note = json.loads((shell.folder / "run" / "run.json").read_text())
    assert {key: post["told"][key] for key in note["summary"]} == note["summary"]
    assert post["told"]["command_to_go_on"] is None
    assert (
        'bulk_updater_rows{job="mapping",outcome="UPDATED"} 20.0'
        in (shell.folder / "bulk.prom").read_text()
    )
    kept = "".join(path.read_text() for path in shell.folder.rglob("*") if path.is_file())
    assert not any(secret in kept for secret in SECRETS)
