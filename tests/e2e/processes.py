"""Real processes: the command as a shell starts it, and a sandbox that is served beside it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"
PATIENCE_S = 60.0
"""How long a machine under load may take for what takes a second on an idle one."""

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"

MAPPING = f"""
update_contact_attributes:
  InstanceId: {INSTANCE}
  InitialContactId: "{{Contact}}"
  Attributes:
    number: "{{Number}}"
    note: "{{Note}}"
"""


def environment(**changes: str) -> dict[str, str]:
    """What the process sees: nothing of the machine's AWS settings, and the sandbox's pair."""
    kept = {
        name: value
        for name, value in os.environ.items()
        # Bytecode is written as it is for a user, or every process would compile pandas anew.
        if not name.startswith(("AWS_", "BULK_UPDATER_", "PYTHON", "COLUMNS", "NO_COLOR"))
        and not name.lower().endswith("_proxy")
    }
    credentials = {
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    return {**kept, **credentials, **changes}


@dataclass(frozen=True)
class Ran:
    """How a process ended and what it printed."""

    code: int
    out: str
    err: str

    def __post_init__(self) -> None:
        # Whatever happens: nobody sees a traceback.
        assert "Traceback" not in self.out + self.err, self.out + self.err

    @property
    def error(self) -> str:
        """What is wrong, without what every end of a run has: how it goes on, and the summary."""
        lines = self.err.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith(("To go on", "summary ")))


@dataclass
class Started:
    """A process that is running, and what it has printed until now."""

    process: subprocess.Popen[bytes]
    printed: dict[str, bytes] = field(default_factory=lambda: {"out": b"", "err": b""})

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def read_until(self, text: str, stream: str) -> None:
        """Return when a stream has said something."""
        self._read(lambda: text.encode() in self.printed[stream], f"{text!r} on {stream}")

    def wait(self) -> Ran:
        """Read to the end."""
        self._read(lambda: False, "the end", to_end=True)
        code = self.process.wait(PATIENCE_S)
        return Ran(code, *(self.printed[name].decode() for name in ("out", "err")))

    def watch(self, is_there: Callable[[], bool], what: str) -> None:
        """Return when something is there, while the process goes on."""
        self._read(is_there, what, looks_every_s=0.02)

    def _read(
        self,
        is_there: Callable[[], bool],
        what: str,
        *,
        to_end: bool = False,
        looks_every_s: float = PATIENCE_S,
    ) -> None:
        deadline = time.monotonic() + PATIENCE_S
        with selectors.DefaultSelector() as selector:
            for name in ("out", "err"):
                stream = getattr(self.process, f"std{name}")
                if stream is not None and not stream.closed:
                    selector.register(stream, selectors.EVENT_READ, name)
            while not is_there() and selector.get_map():
                assert time.monotonic() < deadline, f"waited in vain for {what}: {self.printed}"
                for key, _ in selector.select(looks_every_s):
                    chunk = os.read(key.fd, 65_536)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    self.printed[key.data] += chunk
        assert to_end or is_there(), f"ended without {what}: {self.printed}"


class Shell:
    """Starts `bulk-updater` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        argv: tuple[str, ...] = (sys.executable, "-m", "bulk_updater"),
        **settings: Any,
    ) -> Started:
        """Start it and return at once."""
        process = subprocess.Popen(
            [*argv, *map(str, words)],
            cwd=self.folder,
            env=environment() if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings},
        )
        self._started.append(process)
        return Started(process)

    def run(self, *words: str | Path, **settings: Any) -> Ran:
        """Start it and return when it has ended."""
        return self.start(*words, **settings).wait()

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


class Warm:
    """Runs commands in processes that need not import anything: see `warm`.

    Args:
        module: What the processes are forked from: a module that calls `warm.serve`.
    """

    def __init__(self, module: str = "tests.e2e.warm") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def run(
        self, folder: Path, *words: str, env: Mapping[str, str] | None = None, prepare: Any = None
    ) -> Ran:
        """Run a command in a folder, to its end; `prepare` is for the module."""
        paths = {name: folder / f".std{name}" for name in ("out", "err")}
        request = {
            "folder": str(folder),
            "words": words,
            "env": environment() if env is None else dict(env),
            "prepare": prepare,
            **{name: str(path) for name, path in paths.items()},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return Ran(code, *(path.read_text() for path in paths.values()))

    def close(self) -> None:
        self._process.communicate()


class Served:
    """A sandbox in a process of its own."""

    def __init__(self, shell: Shell, *flags: str) -> None:
        self._started = shell.start("sandbox", "--port", "0", *flags)
        self._started.read_until("\n", "out")
        self.url = self._started.printed["out"].decode().strip()

    def get(self, what: str) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/_sandbox/{what}", timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def received(self) -> int:
        """Requests for contacts that arrived; the question for the quota is none."""
        counters = self.get("counters").items()
        return sum(each["received"] for name, each in counters if name != "get_service_quota")

    def wait_for(self, n_requests: int, of: Started) -> None:
        """Return when so many requests of a process have arrived."""
        before = self.received()
        of.watch(lambda: self.received() - before >= n_requests, f"{n_requests} requests")

    def contacts(self, prefix: str = "") -> dict[str, dict[str, Any]]:
        """The contacts of a test."""
        stored = self.get("state").get(INSTANCE, {})
        return {name: contact for name, contact in stored.items() if name.startswith(prefix)}

    def attributes(self, prefix: str = "") -> dict[str, dict[str, str]]:
        """Their attributes."""
        return {name: each["attributes"] for name, each in self.contacts(prefix).items()}

    def stop(self, number: int = signal.SIGTERM) -> Ran:
        self._started.signal(number)
        return self._started.wait()


def export_of(n_rows: int, n_contacts: int, prefix: str = "c") -> str:
    """An export whose contacts come again and again, each time with another number and note."""
    rows = [f'{prefix}-{row % n_contacts},{row:07d},"note {row}"' for row in range(1, n_rows + 1)]
    return "\n".join(["Contact,Number,Note", *rows, ""])


def state_of(n_rows: int, n_contacts: int, prefix: str = "c") -> dict[str, dict[str, str]]:
    """What the contacts hold when that export was applied in order."""
    return {
        f"{prefix}-{row % n_contacts}": {"number": f"{row:07d}", "note": f"note {row}"}
        for row in range(1, n_rows + 1)
    }


def ledger_of(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a ledger."""
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True)]


def standing(path: Path) -> dict[tuple[int, str], str]:
    """The outcome that stands for each row and operation."""
    return {(each["row"], each["operation"]): each["outcome"] for each in ledger_of(path)}
