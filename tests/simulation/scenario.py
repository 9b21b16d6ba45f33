"""What one seed draws: an export, a mapping, a service, its faults, and how the run is ended early.

A scenario is plain data. What happens while it runs is drawn from its seed again, by request and
not by turn, so that a smaller scenario of the same seed still meets the same faults.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any, Literal

RETRIED, SUPERSEDED = 0.32, 0.22
"""Shares of the seeds in which the run is retried, or a newer export's run takes over from it."""

FEW_ROWS, MANY_ROWS = 8, 30
NEWER_ROWS = 500_000
"""Above it are the numbers of rows that are only in a newer export."""

INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"
ATTRIBUTES, CONTACT = "update_contact_attributes", "update_contact"

COLUMNS = ("Contact", "Status", "Number", "Tier", "Note", "Extra", "Due")

FAULTS = (
    "error",
    "error_after",
    "html",
    "unknown",
    "drop_before",
    "drop_after",
    "half_answer",
    "hang_before",
    "hang_after",
    "hang_late",
    "conflict",
    "throttle",
    "throttle_for_a_while",
    "proxy_page",
)
"""What may become of a single request."""

EPISODES = ("expired", "denied", "storm", "unreachable", "outage", "quota")
"""What may go on for a while."""

POINTS = (
    "before send",
    "after send",
    "before write",
    "in a write",
    "before sync",
    "after sync",
    "before rename",
    "after rename",
)
"""Moments at which the process may end."""


@dataclass(frozen=True)
class Row:
    """One row of the export, by its cells; `ragged` ones have a cell too few."""

    contact: str
    status: str
    number: str
    tier: str
    note: str
    extra: str
    due: str
    ragged: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of `COLUMNS`."""
        cells = (self.contact, self.status, self.number, self.tier, self.note, self.extra, self.due)
        return cells[:-1] if self.ragged else cells


@dataclass(frozen=True)
class Episode:
    """Something that goes on from one moment to another, in seconds."""

    kind: str
    begins_s: float
    ends_s: float


@dataclass(frozen=True)
class Ending:
    """How one execution ends before its time.

    Attributes:
        kind: `kill` and `power` end the process; `stop` and `cancel` are the first and the second
            Ctrl-C; `disk` lets the disk fail; `deadline` is `--for`, with its seconds.
        point: Where: one of `POINTS`, or `time`; of `disk` the operation, `write` or `sync`.
        nth: At which passing, from 1; seconds for `time`.
        stop_s: Seconds after which it was told to stop before; None: it was not.
    """

    kind: Literal["kill", "power", "stop", "cancel", "disk", "deadline"]
    point: str
    nth: float
    stop_s: float | None = None


@dataclass(frozen=True)
class Retry:
    """The failed rows of the finished run once more, until a `retry` ends by itself.

    Attributes:
        by_code: Whether only one of the codes that are there is asked for.
        endings: How its executions end before their time.
        episodes: What goes on for a while, from its beginning.
    """

    by_code: bool = False
    endings: tuple[Ending, ...] = ()
    episodes: tuple[Episode, ...] = ()


@dataclass(frozen=True)
class Newer:
    """A newer export, whose run takes over from the one before, which is left as it is.

    Attributes:
        rows: The export. A row that is in the older one as well has the same number in its cell.
        endings: How its executions end before their time.
        episodes: What goes on for a while, from its beginning.
        again: What the older run is given once the newer one has begun to send, and once it has
            finished; None: nothing.
    """

    rows: tuple[Row, ...]
    endings: tuple[Ending, ...] = ()
    episodes: tuple[Episode, ...] = ()
    again: Literal["run", "retry"] | None = None


@dataclass(frozen=True)
class Scenario:
    """Everything that is drawn before a seed is run; see the fields' names.

    With `retries` and no `newer` one, the run finishes first. With a `newer` one, the executions of
    the last command before it all have their endings, and it is not given again.
    """

    seed: int
    rows: tuple[Row, ...]
    operations: tuple[str, ...] = (ATTRIBUTES,)
    tier: Literal["default", "map"] = "default"
    note: Literal["skip", "erase", "reject"] = "skip"
    source: Literal["csv", "csv.gz", "parquet"] = "csv"
    n_sources: int = 1
    frame_rows: int = 8
    max_in_flight: int = 4
    resumed_in_flight: int = 4
    first_limit: int | None = None
    max_waiting: int = 16
    max_attempts: int = 4
    max_failures: int | None = None
    rate: float | Literal["quota", "auto"] = 50.0
    exclusive: bool = False
    read_timeout_s: float = 10.0
    service_rate_per_s: float = 50.0
    service_burst: float = 15.0
    live_per_s: float = 0.0
    latency_ms: float = 60.0
    latency_jitter: float = 0.5
    network_s: float = 0.001
    thread_s: float = 0.005
    faults: dict[str, float] = field(default_factory=dict)
    episodes: tuple[Episode, ...] = ()
    endings: tuple[Ending, ...] = ()
    rival: bool = False
    retries: tuple[Retry, ...] = ()
    newer: Newer | None = None

    @property
    def is_plain(self) -> bool:
        """Whether all there is to it is one run, to its end."""
        return not self.retries and self.newer is None

    @property
    def has_whole_run(self) -> bool:
        """Whether a run is brought to its end before anything else is done."""
        return bool(self.retries) or self.newer is None

    def of_newer(self) -> Scenario:
        """What the newer export's run is, for itself."""
        newer = self.newer
        assert newer is not None
        return replace(
            self,
            rows=newer.rows,
            endings=newer.endings,
            episodes=newer.episodes,
            first_limit=None,
            rival=False,
            retries=(),
            newer=None,
        )


def draw(seed: int) -> Scenario:
    """The scenario of a seed: a run, and in more than half of them what comes after it."""
    scenario = draw_run(seed)
    rng = random.Random(f"{seed} afterwards")
    kind = rng.random()
    if kind < RETRIED:
        return _with_retries(rng, scenario)
    if kind < RETRIED + SUPERSEDED:
        return _with_newer(rng, scenario)
    return scenario


def draw_run(seed: int) -> Scenario:
    """The scenario of a seed, without what comes after its run."""
    rng = random.Random(seed)
    n_rows = rng.choice(
        [0, 1, 2, 3, 8, rng.randint(4, 30), rng.randint(10, 40), rng.randint(20, 80)]
    )
    source = rng.choice(["csv", "csv", "csv.gz", "parquet"])
    operations = rng.choice([(ATTRIBUTES,), (ATTRIBUTES,), (CONTACT,), (ATTRIBUTES, CONTACT)])
    service_rate_per_s = rng.choice([2.0, 10.0, 10.0, 50.0, 200.0])
    endings = tuple(_draw_ending(rng) for _ in range(rng.choice([0, 1, 1, 2, 3, 4])))
    return Scenario(
        seed=seed,
        rows=_draw_rows(rng, n_rows, ragged=source != "parquet"),
        operations=operations,
        tier=rng.choice(["default", "map"]),
        note=rng.choice(["skip", "skip", "erase", "reject"]),
        source=source,
        n_sources=rng.choice([1, 1, 1, 2, 3]),
        frame_rows=rng.choice([1, 3, 8, 100]),
        max_in_flight=(max_in_flight := rng.choice([1, 2, 3, 4, 8, 16])),
        resumed_in_flight=rng.choice([max_in_flight, max_in_flight, 1, 4, 16]),
        first_limit=rng.choice([None] * 9 + [rng.randint(1, 20)]),
        max_waiting=rng.choice([1, 2, 8, 64]),
        max_attempts=rng.choice([1, 2, 3, 5, 8]),
        max_failures=rng.choice([None, None, None, None, 3, 10]),
        rate=rng.choice(["quota", "auto", service_rate_per_s, service_rate_per_s * 2, 5.0, 300.0]),
        exclusive=rng.random() < 0.3,
        read_timeout_s=rng.choice([2.0, 10.0]),
        service_rate_per_s=service_rate_per_s,
        service_burst=rng.choice([1.0, 5.0, 15.0, 100.0]),
        live_per_s=rng.choice([0.0, 0.0, 0.1]) * service_rate_per_s,
        latency_ms=rng.choice([5.0, 60.0, 60.0, 300.0]),
        latency_jitter=rng.choice([0.0, 0.5, 1.0]),
        network_s=rng.choice([0.0001, 0.001, 0.02]),
        thread_s=rng.choice([0.0001, 0.002, 0.02, 0.2]),
        faults=_draw_faults(rng),
        episodes=tuple(_draw_episode(rng) for _ in range(rng.choice([0, 0, 0, 1, 1, 2]))),
        endings=endings,
        rival=rng.random() < 0.05,
    )


def _draw_rows(rng: random.Random, n_rows: int, *, ragged: bool) -> tuple[Row, ...]:
    n_contacts = max(1, round(n_rows * rng.choice([0.05, 0.2, 0.5, 1.0, 2.0])))
    odd = rng.choice([0.0, 0.1, 0.3])
    large = rng.choice([0.0, 0.0, 0.0, 0.0, 0.0, 0.3])
    rows = []
    for number in range(1, n_rows + 1):
        row = Row(
            contact=f"contact-{rng.randrange(n_contacts)}",
            status="done",
            number=f"n{number:06d}",
            tier=rng.choice(["A", "B", "", "A", "A", "A"]),
            note=rng.choice(["", f"note of {number}", f"Grüße, „{number}“; 1e5"]),
            extra=rng.choice(["", f"x{number}"]),
            due=rng.choice(["", "01/02/2026", "28/11/2025"]),
        )
        if rng.random() < large:
            text = f"{number} " + "m" * rng.choice([15_000, 20_000])
            row = replace(row, **{rng.choice(["note", "extra"]): text})
        if rng.random() < odd:
            row = replace(row, **rng.choice(_odd_cells(rng, ragged=ragged)))
        rows.append(row)
    return tuple(rows)


def _odd_cells(rng: random.Random, *, ragged: bool) -> tuple[dict[str, Any], ...]:
    """The ways in which a row is not like the others."""
    return (
        {"status": "open"},
        {"contact": ""},
        {"contact": f"missing-{rng.randrange(3)}"},
        {"due": "31/02/2026"},
        {"tier": "Z"},
        {"ragged": ragged},
        {"note": "h" * 20_000, "extra": "h" * 20_000},
    )


def _draw_faults(rng: random.Random) -> dict[str, float]:
    if rng.random() < 0.25:
        return {}
    kinds = rng.sample(FAULTS, rng.randint(1, 4))
    return {kind: rng.choice([0.02, 0.1, 0.25]) for kind in kinds}


def _draw_episode(rng: random.Random) -> Episode:
    begins_s = rng.choice([0.0, rng.uniform(0, 5), rng.uniform(0, 60)])
    return Episode(rng.choice(EPISODES), begins_s, begins_s + rng.choice([1.0, 10.0, 120.0]))


def _draw_ending(rng: random.Random) -> Ending:
    kind = rng.choice(["kill", "kill", "power", "power", "power", "stop", "cancel", "disk"])
    if kind == "disk":
        return Ending(kind, rng.choice(["write", "sync"]), _draw_nth(rng))
    if kind in ("kill", "power"):
        stop_s = rng.uniform(0, 3) if rng.random() < 0.1 else None
        if rng.random() < 0.7:
            return Ending(kind, rng.choice(POINTS), _draw_nth(rng), stop_s)
    elif rng.random() < 0.5:
        return Ending(kind, rng.choice(["before send", "after send"]), _draw_nth(rng))
    return Ending(
        kind, "time", rng.choice([rng.uniform(0, 0.3), rng.uniform(0, 3), rng.uniform(0, 20)])
    )


def _draw_nth(rng: random.Random) -> int:
    return rng.choice([1, 2, 2, 3, 4, rng.randint(1, 12), rng.randint(1, 40)])


def _with_retries(rng: random.Random, scenario: Scenario) -> Scenario:
    """The scenario with some rows more that fail, and what is done about them."""
    scenario = _with_enough_rows(rng, scenario)
    refused = {"unknown": rng.choice([0.0, 0.2, 0.4])}
    retries = tuple(
        Retry(
            by_code=rng.random() < 0.4,
            endings=tuple(_draw_late_ending(rng) for _ in range(rng.choice([0, 1, 1, 2]))),
            episodes=tuple(_draw_episode(rng) for _ in range(rng.choice([0, 0, 0, 1]))),
        )
        for _ in range(rng.choice([1, 1, 2]))
    )
    return replace(scenario, faults=refused | scenario.faults, retries=retries)


def _with_enough_rows(rng: random.Random, scenario: Scenario) -> Scenario:
    """The scenario, mostly with as many rows as it takes for something to be left of them."""
    if len(scenario.rows) >= FEW_ROWS or rng.random() < 0.1:
        return replace(scenario, rows=scenario.rows[:MANY_ROWS])
    rows = _draw_rows(rng, rng.randint(FEW_ROWS, 16), ragged=scenario.source != "parquet")
    return replace(scenario, rows=rows)


def _with_newer(rng: random.Random, scenario: Scenario) -> Scenario:
    """The scenario, left unfinished, with a newer export."""
    scenario = _with_enough_rows(rng, scenario)
    newer = Newer(
        rows=_draw_newer_rows(rng, scenario),
        endings=tuple(_draw_late_ending(rng) for _ in range(rng.choice([0, 1, 1, 2]))),
        episodes=tuple(_draw_episode(rng) for _ in range(rng.choice([0, 0, 0, 1]))),
        again=rng.choice([None, "run", "retry"]),
    )
    if rng.random() < 0.2:
        left = Retry(endings=(_draw_late_ending(rng),))
        return replace(scenario, retries=(left,), newer=newer)
    endings = tuple(
        _draw_late_ending(rng, n_requests=len(scenario.rows)) for _ in range(rng.choice([1, 1, 2]))
    )
    return replace(scenario, endings=endings, first_limit=None, newer=newer)


def _draw_late_ending(rng: random.Random, n_requests: int = 6) -> Ending:
    """As for a run; but before all of so many requests are sent, and it may have a deadline."""
    if rng.random() < 0.15:
        return Ending("deadline", "time", rng.uniform(0.05, 12))
    ending = _draw_ending(rng)
    if ending.point == "time":
        return ending
    return replace(ending, nth=rng.choice([1, 2, 3, rng.randint(1, max(3, n_requests))]))


def _draw_newer_rows(rng: random.Random, scenario: Scenario) -> tuple[Row, ...]:
    """Some rows as they were, some changed, some gone, some new."""
    rows = _without_some(rng, scenario.rows)
    ragged = scenario.source != "parquet"
    changes = rng.choice([0.0, 0.1, 0.5])
    numbers = iter(range(NEWER_ROWS + 1, NEWER_ROWS + 1_000))
    rows = [
        replace(row, number=f"n{next(numbers):06d}", note=rng.choice(["", "newer"]))
        if rng.random() < changes
        else row
        for row in rows
    ]
    for row in _draw_rows(rng, rng.choice([0, 0, 3, 10]), ragged=ragged):
        contact = row.contact and rng.choice([row.contact, f"{row.contact}-newer"])
        new = replace(row, number=f"n{next(numbers):06d}", contact=contact)
        rows.insert(rng.randint(0, len(rows)), new)
    return tuple(rows)


def _without_some(rng: random.Random, rows: tuple[Row, ...]) -> list[Row]:
    """Without some rows, and of some contacts one row only: those may be found to be unchanged."""
    gone = rng.choice([0.0, 0.2])
    alone = {
        contact: rng.choice([row for row in rows if row.contact == contact])
        for contact in dict.fromkeys(row.contact for row in rows)
        if rng.random() < 0.7
    }
    kept = [row for row in rows if rng.random() >= gone and row is alone.get(row.contact, row)]
    if rng.random() < 0.3:
        rng.shuffle(kept)
    return kept
