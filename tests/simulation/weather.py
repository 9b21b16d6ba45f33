"""What goes wrong at the service and on the way: by request, and for a while."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from bulk_updater.sandbox.answers import Answer, error_answer
from bulk_updater.sandbox.errors import ServiceError
from bulk_updater.sandbox.faults import CONFLICT, DROP_AFTER, DROP_BEFORE, ERROR, HTML, Fault

from .scenario import ATTRIBUTES, CONTACT

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulk_updater.sandbox import Sandbox

    from .network import Network
    from .scenario import Episode, Scenario


def _throttle(operation: str, retry_after_s: int | None = None) -> Answer:
    code = "TooManyRequestsException" if operation == ATTRIBUTES else "ThrottlingException"
    answer = error_answer(ServiceError(code, "Too many."))
    if retry_after_s is None:
        return answer
    headers = dict(answer.headers) | {"Retry-After": str(retry_after_s)}
    return Answer(status=answer.status, body=answer.body, headers=headers)


def _forbidden(code: str) -> Answer:
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
    return Answer(status=403, body=b'{"message":"no"}', headers=headers)


_EXPIRED = _forbidden("ExpiredTokenException")
_DENIED = _forbidden("AccessDeniedException")
_UNKNOWN = Answer(
    status=400,
    body=b'{"message":"never heard of"}',
    headers={"Content-Type": "application/json", "x-amzn-ErrorType": "BrandNewException"},
)
_PROXY_PAGE = Answer(body=b"<html>Log in</html>", headers={}, identified=False)


class Weather:
    """Chooses the fault of each request that passed its bucket, and turns what lasts on and off.

    Args:
        scenario: What may happen.
        clock: Seconds since the beginning.
        row_of: The row that a request was made for, as a number that no other export has.
    """

    def __init__(
        self,
        scenario: Scenario,
        clock: Callable[[], float],
        row_of: Callable[[str, dict[str, Any]], int],
    ) -> None:
        self.happened: Counter[str] = Counter()
        self._scenario = scenario
        self._clock = clock
        self._row_of = row_of
        self._seen: Counter[tuple[str, int]] = Counter()
        self._n_rows: Counter[str] = Counter()
        self._going_on: set[str] = set()
        self._is_clear = False

    @property
    def is_unreachable(self) -> bool:
        """Whether connections are refused now."""
        return "unreachable" in self._going_on

    def begin(self, sandbox: Sandbox, network: Network, scenario: Scenario) -> None:
        """From now on nothing goes on for a while, and only single requests meet a fault.

        Args:
            sandbox: The service.
            network: The way there.
            scenario: Whose rows are sent.
        """
        self.clear_up(network)
        self._is_clear = False
        self._n_rows = Counter(row.contact for row in scenario.rows)
        sandbox.change_quota(
            rate_per_s=self._scenario.service_rate_per_s, burst=self._scenario.service_burst
        )

    async def turn(self, sandbox: Sandbox, network: Network, episodes: tuple[Episode, ...]) -> None:
        """Turn episodes on and off at their times, from now on."""
        scenario, begun_s = self._scenario, self._clock()
        turns = [(each.begins_s, True, each.kind) for each in episodes]
        turns += [(each.ends_s, False, each.kind) for each in episodes]
        for at_s, begins, kind in sorted(turns):
            await asyncio.sleep(max(0.0, begun_s + at_s - self._clock()))
            if self._is_clear:
                return
            if begins:
                self._going_on.add(kind)
                self.happened[kind] += 1
            else:
                self._going_on.discard(kind)
            network.refuses = self.is_unreachable
            scale = 0.3 if "quota" in self._going_on else 1.0
            sandbox.change_quota(
                rate_per_s=scenario.service_rate_per_s * scale, burst=scenario.service_burst
            )

    def clear_up(self, network: Network) -> None:
        """From now on all is well."""
        self._is_clear = True
        self._going_on.clear()
        network.refuses = False

    def fault(self, operation: str, members: dict[str, Any]) -> Fault | None:
        """The sandbox's script."""
        if operation not in (ATTRIBUTES, CONTACT) or self._is_clear:
            return None
        for kind, answer in (
            ("expired", _EXPIRED),
            ("denied", _DENIED),
            ("storm", _throttle(operation)),
            ("outage", HTML.answer),
        ):
            if kind in self._going_on:
                return Fault(kind=kind, answer=answer)
        row = self._row_of(operation, members)
        self._seen[operation, row] += 1
        rng = random.Random(f"{self._scenario.seed} {operation} {row} {self._seen[operation, row]}")
        number = rng.random()
        for kind, share in self._scenario.faults.items():
            number -= share
            if number < 0:
                contact = members.get("InitialContactId") or members["ContactId"]
                fault = self._make(kind, operation, rng, is_alone=self._n_rows[contact] == 1)
                if fault is not None:
                    self.happened[kind] += 1
                return fault
        return None

    def _make(
        self, kind: str, operation: str, rng: random.Random, *, is_alone: bool
    ) -> Fault | None:
        hang_s = self._scenario.read_timeout_s + rng.choice([0.5, 3.0])
        faults = {
            "conflict": CONFLICT if operation == CONTACT else None,
            "half_answer": Fault(kind=kind, applied=True, breaks_off=True),
            # Applied when the client has long gone on: what a later row wrote would be undone, and
            # no client could help it. So only where there is none.
            "hang_late": Fault(kind=kind, applied=True, delay_s=hang_s) if is_alone else None,
            "hang_before": Fault(kind=kind, drop=True, delay_s=hang_s),
            "hang_after": Fault(kind=kind, applied=True, late_s=hang_s),
            "throttle": Fault(kind=kind, answer=_throttle(operation)),
            "throttle_for_a_while": Fault(
                kind=kind, answer=_throttle(operation, rng.choice([1, 5, 60]))
            ),
            "proxy_page": Fault(kind=kind, answer=_PROXY_PAGE),
            "error": ERROR,
            "error_after": Fault(kind=kind, answer=ERROR.answer, applied=True),
            "unknown": Fault(kind=kind, answer=_UNKNOWN),
            "html": HTML,
            "drop_before": DROP_BEFORE,
            "drop_after": DROP_AFTER,
        }
        return faults[kind]
