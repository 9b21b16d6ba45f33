"""What one seed draws: a year of exports, and what goes wrong in some of its nights.

A scenario is plain data. What happens while it runs is drawn from its seed again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from tests.simulation.scenario import ATTRIBUTES, CONTACT, Ending, Episode

N_NIGHTS = 365
DAY_S = 86_400
REFRESH_S = 30.0 * DAY_S
MAX_CHANGE = 0.2
COLUMNS = ("Contact", "Status", "Tier", "Note", "Extra", "Due")
UNREADABLE = "31/02/2026"
MISSING = "missing-7"

TROUBLES = (
    "storm",
    "outage",
    "outage_all_night",
    "kill",
    "kill_unresumed",
    "power",
    "short",
    "new_mapping",
    "broken",
    "quota",
    "missed",
    "overlap_same",
    "overlap_other",
    "ambiguous",
    "live",
    "retry",
    "retry_late",
    "late_resume",
    "supersede",
    "meddled",
    "drift",
)
"""What may be wrong with a night."""

_BUSY = {
    *("storm", "outage", "kill", "kill_unresumed", "power", "short", "quota", "ambiguous"),
    *("retry", "retry_late", "late_resume", "supersede", "overlap_same", "overlap_other"),
}
"""Those in which more than usual has changed."""

POINTS = (
    "before send",
    "after send",
    "before write",
    "in a write",
    "before sync",
    "after sync",
    "before rename",
    "after rename",
    "before mark",
    "after mark",
    "before confirm",
    "after confirm",
)
"""Moments at which the process may end."""


@dataclass(frozen=True)
class Row:
    """One row of an export, by its cells."""

    contact: str
    status: str = "done"
    tier: str = "A"
    note: str = ""
    extra: str = ""
    due: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of `COLUMNS`."""
        return (self.contact, self.status, self.tier, self.note, self.extra, self.due)


@dataclass(frozen=True)
class Night:
    """One night; see the fields' names.

    Attributes:
        number: From 0.
        rows: The export.
        version: Of the mapping.
        trouble: One of `TROUBLES`, or `calm`.
        max_change: What `--max-change` is; None: it is not given.
        broken: Whether the export's columns are shifted.
        episodes: What goes on for a while, from the night's beginning.
        faults: Share of the requests that meets a fault, by its kind.
        endings: How one execution after the other ends before its time.
        resumes: Whether the command is given again in the same night.
        for_s: Seconds that each execution may take; None: until six in the morning.
        live_per_s: Requests a second of the live contact centre.
        meddles: Contact, key and value of what someone else writes before.
        verifies: Whether all that is unchanged is read back.
    """

    number: int
    rows: tuple[Row, ...]
    version: int = 1
    trouble: str = "calm"
    max_change: float | None = None
    broken: bool = False
    episodes: tuple[Episode, ...] = ()
    faults: dict[str, float] = field(default_factory=dict)
    endings: tuple[Ending, ...] = ()
    resumes: bool = True
    for_s: float | None = None
    live_per_s: float = 0.0
    meddles: tuple[tuple[str, str, str], ...] = ()
    verifies: bool = False


@dataclass(frozen=True)
class Year:
    """What is drawn before a seed is run; see the fields' names."""

    seed: int
    nights: tuple[Night, ...]
    operations: tuple[str, ...]
    refresh_s: float | None
    explicit_dirs: bool
    max_in_flight: int
    max_attempts: int
    rate: float | str


def draw(seed: int, n_nights: int = N_NIGHTS, *, troubles: tuple[str, ...] = TROUBLES) -> Year:
    """The year of a seed; a shorter one is its beginning.

    Args:
        seed: The seed.
        n_nights: How many nights, from the first.
        troubles: What may go wrong; with fewer than all it goes wrong every other night.
    """
    rng = random.Random(f"{seed} year")
    export = _Export(rng, n_contacts=rng.randint(25, 45))
    operations = rng.choice([(ATTRIBUTES,), (ATTRIBUTES,), (ATTRIBUTES, CONTACT)])
    year = Year(
        seed=seed,
        nights=(),
        operations=operations,
        refresh_s=rng.choice([None, REFRESH_S]),
        explicit_dirs=rng.random() < 0.5,
        max_in_flight=rng.choice([1, 4, 8, 32]),
        max_attempts=rng.choice([2, 3, 8]),
        rate=rng.choice(["quota", "auto", 20.0]),
    )
    version, nights = 1, []
    for number in range(n_nights):
        trouble = _draw_trouble(rng, number, nights, troubles)
        version += trouble == "new_mapping"
        # In some nights much is sent, so that there is something to get wrong.
        export.go_on(rng, 0.3 if trouble in _BUSY else 0.02)
        night = Night(number, tuple(export.rows), version, trouble)
        nights.append(_with_trouble(rng, night, nights))
    return replace(year, nights=tuple(nights))


def _draw_trouble(
    rng: random.Random, number: int, nights: list[Night], troubles: tuple[str, ...]
) -> str:
    if number == 0:
        return rng.choice(["calm", *(each for each in ("short", "kill") if each in troubles)])
    behind = {
        "kill_unresumed": ("late_resume", "supersede"),
        "outage": ("late_resume", "supersede"),
        "short": ("late_resume", "supersede"),
        "ambiguous": ("retry_late",),
    }
    fitting = [each for each in behind.get(nights[-1].trouble, ()) if each in troubles]
    if fitting and rng.random() < 0.5:
        return rng.choice(fitting)
    if number > 1 and rng.random() < (0.35 if troubles == TROUBLES else 0.5):
        return rng.choice(troubles)
    return "calm"


def _with_trouble(rng: random.Random, night: Night, before: list[Night]) -> Night:
    """The night with what is wrong with it."""
    kind = night.trouble
    shares = {"drop_after": 0.15, "error_after": 0.15, "half_answer": 0.1, "hang_after": 0.05}
    some = {"for_s": rng.choice([20.0, 60.0]), "resumes": rng.random() < 0.5}
    ends_s = rng.choice([5.0, 30.0, 200.0])
    if kind == "calm" and len(before) > 1 and _is_quiet(before[-3:]) and rng.random() < 0.3:
        return replace(night, max_change=0.5)
    by_kind = {
        "storm": some | {"episodes": (Episode("storm", 0.0, ends_s),)},
        "outage": some
        | {"episodes": (Episode(rng.choice(["outage", "unreachable"]), 1.0, ends_s),)},
        "outage_all_night": {
            "for_s": 30.0,
            "resumes": False,
            "episodes": (Episode(rng.choice(["outage", "unreachable"]), 0.0, 5000.0),),
        },
        "kill": {"endings": tuple(_draw_end(rng, "kill") for _ in range(rng.randint(1, 3)))},
        "power": {"endings": tuple(_draw_end(rng, "power") for _ in range(rng.randint(1, 3)))},
        "kill_unresumed": {"endings": (_draw_end(rng, "kill"),), "resumes": False},
        "short": {
            "for_s": rng.choice([0.5, 1.5, 3.0]),
            "resumes": rng.random() < 0.3,
            "faults": {"hang_after": rng.choice([0.0, 0.3])},
        },
        "new_mapping": {"for_s": rng.choice([1.5, 3.0, 60.0]), "resumes": rng.random() < 0.5},
        "broken": {
            "rows": tuple(_shifted(row) for row in night.rows),
            "broken": True,
            "resumes": False,
            "max_change": MAX_CHANGE,
        },
        "quota": {"episodes": (Episode("quota", 0.0, 3000.0),)},
        "ambiguous": {"faults": shares},
        "retry": {"faults": {"unknown": 0.3}},
        "retry_late": {"faults": {"unknown": 0.2}},
        "live": {"live_per_s": 4.0},
        "overlap_same": {"faults": {"slow": 1.0}},
        "overlap_other": {"faults": {"slow": 1.0}},
        "meddled": {"meddles": _draw_meddles(rng, night)},
        "drift": {"meddles": _draw_meddles(rng, night), "verifies": True},
    }
    return replace(night, **by_kind.get(kind, {}))


def _is_quiet(nights: list[Night]) -> bool:
    return all(night.trouble == "calm" for night in nights)


def _draw_end(rng: random.Random, kind: str) -> Ending:
    if rng.random() < 0.75:
        return Ending(kind, rng.choice(POINTS), rng.choice([1, 1, 2, 3, rng.randint(1, 12)]))
    return Ending(kind, "time", rng.choice([rng.uniform(0, 0.5), rng.uniform(0, 4)]))


def _draw_meddles(rng: random.Random, night: Night) -> tuple[tuple[str, str, str], ...]:
    contacts = sorted({row.contact for row in night.rows if row.contact and row.contact != MISSING})
    return tuple(
        (contact, rng.choice(["tier", "note"]), rng.choice(["meddled", "A"]))
        for contact in rng.sample(contacts, min(3, len(contacts)))
    )


def _shifted(row: Row) -> Row:
    """The cells of the row one column further on, but for the contact."""
    return Row(row.contact, "done", row.note or "open", row.tier, row.due or "x", "")


class _Export:
    """An export that changes from night to night."""

    def __init__(self, rng: random.Random, n_contacts: int) -> None:
        self.rows: list[Row] = []
        self._gone: list[Row] = []
        self._n_contacts = 0
        for _ in range(n_contacts):
            self._add(rng)
        self.rows.insert(rng.randrange(len(self.rows)), Row(MISSING))
        self.rows.insert(rng.randrange(len(self.rows)), Row("contact-odd", due=UNREADABLE))
        self.rows.insert(rng.randrange(len(self.rows)), Row("contact-open", status="open"))

    def go_on(self, rng: random.Random, share: float) -> None:
        """The next night's."""
        for at, row in enumerate(self.rows):
            if row.contact != MISSING and rng.random() < share:
                self.rows[at] = self._changed(rng, row)
        if rng.random() < 0.2:
            self._add(rng)
        if self._gone and rng.random() < 0.2:
            self.rows.append(self._gone.pop(rng.randrange(len(self._gone))))
        if rng.random() < 0.3 and len(self.rows) > 20:
            row = self.rows.pop(rng.randrange(len(self.rows)))
            if row.contact == MISSING:
                self.rows.append(row)
            else:
                self._gone.append(row)

    def _add(self, rng: random.Random) -> None:
        self._n_contacts += 1
        row = self._changed(rng, Row(f"contact-{self._n_contacts}"))
        n_rows = rng.choice([1] * 9 + [rng.randint(2, 3)])
        for _ in range(n_rows):
            self.rows.insert(rng.randint(0, len(self.rows)), row)
            row = self._changed(rng, row)

    @staticmethod
    def _changed(rng: random.Random, row: Row) -> Row:
        """Few values, so that contacts often go back to what they were."""
        name, values = rng.choice(
            [
                ("tier", ["A", "B", ""]),
                ("tier", ["A", "B", ""]),
                ("note", ["", "one", "two"]),
                ("extra", ["", "x"]),
                ("due", ["", "01/02/2026", UNREADABLE]),
                ("status", ["done", "done", "done", "open"]),
            ]
        )
        return replace(row, **{name: rng.choice(values)})
