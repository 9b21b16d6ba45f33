"""Somebody who lends credentials, as a single sign-on would."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.stub_service import answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.stub_service import Answer, Received

LENDER = """\
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
asked = folder / "asked"
n = len(asked.read_text()) + 1 if asked.exists() else 1
asked.write_text("x" * n)
if (folder / "broken").exists():
    sys.exit("the log-in has ended")
print(json.dumps({
    "Version": 1,
    "AccessKeyId": f"KEY{n}",
    "SecretAccessKey": "secret",
    "SessionToken": "token",
    "Expiration": (folder / "expiration").read_text(),
}))
"""


class Lender:
    """A `credential_process` that counts how often it is asked, and lends another key each time.

    Attributes:
        config: A configuration file whose default profile uses it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        program = folder / "lender.py"
        program.write_text(LENDER)
        self.config = folder / "aws-config"
        self.config.write_text(
            f"[default]\ncredential_process = {sys.executable} {program} {folder}\n"
        )
        self.lends_until(datetime.now(UTC) + timedelta(hours=8))

    @property
    def n_asked(self) -> int:
        return len((self._folder / "asked").read_text())

    def lends_until(self, moment: datetime) -> None:
        (self._folder / "expiration").write_text(moment.isoformat())

    def break_down(self) -> None:
        (self._folder / "broken").touch()

    def mend(self) -> None:
        (self._folder / "broken").unlink()


def key_of(received: Received) -> str:
    """The access key that a request is signed with."""
    return received.headers["authorization"].partition("Credential=")[2].partition("/")[0]


def lent(key: str) -> Answer:
    """A role, for an hour."""
    until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return answer(
        200,
        f'<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>'
        f"<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
        f"<SessionToken>t</SessionToken><Expiration>{until}</Expiration></Credentials>"
        f"</AssumeRoleResult></AssumeRoleResponse>".encode(),
    )
