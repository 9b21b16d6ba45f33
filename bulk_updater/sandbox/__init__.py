"""A local Amazon Connect over HTTP, to try a mapping against and to test the client with.

| file | owns |
|---|---|
| `config.py` | everything that a sandbox can be told |
| `server.py` | HTTP: the socket, requests in, answers out |
| `service.py` | the way of one request, from its arrival to its answer |
| `routes.py` | which operation a request is for, and what it says |
| `signing.py` | Signature Version 4, verified |
| `throttle.py` | one token bucket for each operation, and who else drinks from it |
| `faults.py` | what goes wrong |
| `limits.py` | the rules that a request can break by itself |
| `state.py` | contacts, and the rules that need what is stored |
| `contacts.py` | which contacts exist |
| `counters.py` | what happened, in numbers |
| `answers.py`, `errors.py` | what goes over the wire |

It shares no code with the client that it tests, and none with the AWS SDKs.
"""

from __future__ import annotations

from bulk_updater.sandbox.config import SandboxConfig
from bulk_updater.sandbox.server import Sandbox

__all__ = ["Sandbox", "SandboxConfig"]
