"""Which controller a run gets, and where it begins: a table."""

from __future__ import annotations

import pytest

from bulk_updater.config import PacingConfig
from bulk_updater.model import Quota, QuotaOrigin
from bulk_updater.pacing import (
    Controller,
    Regulator,
    ReservingController,
    SeekingController,
    YieldingController,
    ceiling_per_s,
    choose_controller,
    initial_rate_per_s,
)
from tests.pacing.by_hand import Hand

DOCUMENTED = QuotaOrigin.DOCUMENTED

# rate, exclusive, controller, ceiling and initial rate at a quota of 20 and a share of 0.7
TABLE = [
    ("quota", False, YieldingController, 14.0, 14.0),
    ("quota", True, SeekingController, 20.0, 20.0),
    ("auto", False, ReservingController, None, 14.0),
    ("auto", True, SeekingController, None, 20.0),
    (5.0, False, YieldingController, 5.0, 5.0),
    (5.0, True, SeekingController, 5.0, 5.0),
    (50.0, False, YieldingController, 50.0, 50.0),
    (50.0, True, SeekingController, 50.0, 50.0),
]


@pytest.mark.parametrize("origin", QuotaOrigin)
@pytest.mark.parametrize(("rate", "exclusive", "kind", "ceiling", "initial"), TABLE)
def test_choice(
    rate: float | str,
    kind: type[Controller],
    ceiling: float | None,
    initial: float,
    origin: QuotaOrigin,
    *,
    exclusive: bool,
):
    """What the user asked for decides who controls, where the ceiling is, and where it begins."""
    config = PacingConfig(rate=rate, exclusive=exclusive, quota_share=0.7)  # type: ignore[arg-type]
    quota = Quota(rate_per_s=20.0, origin=origin)
    controller = choose_controller(config, quota, 100.0)
    assert type(controller) is kind
    assert ceiling_per_s(config, quota) == ceiling
    assert initial_rate_per_s(config, quota) == initial
    began_per_s = controller.rate_per_s(100.0)
    if ceiling is None:
        # It looks for more from the start: far, where only the documentation says so.
        most = 40.0 if origin is DOCUMENTED else 1.3 * initial
        assert initial <= began_per_s <= most
    else:
        assert 0.99 * ceiling <= began_per_s <= ceiling
    assert controller.found() is None


@pytest.mark.parametrize("origin", QuotaOrigin)
@pytest.mark.parametrize("rate_per_s", [0.001, 0.5, 8.0, 300.0])
@pytest.mark.parametrize("exclusive", [False, True])
def test_a_named_rate_is_never_exceeded(rate_per_s: float, origin: QuotaOrigin, *, exclusive: bool):
    """A rate that somebody named is the most that is ever allowed, whatever is accepted, and while
    all is accepted it is what is allowed."""
    config = PacingConfig(rate=rate_per_s, exclusive=exclusive)
    quota = Quota(rate_per_s=10.0, origin=origin)
    regulator = Regulator(choose_controller(config, quota, 0.0), 0.0)
    for n in range(3000):
        now_s = n / rate_per_s
        regulator.accepted(regulator.started(now_s), now_s)
        assert 0.99 * rate_per_s <= regulator.tokens.rate_per_s <= rate_per_s


@pytest.mark.parametrize(("share", "exclusive", "expected"), [(0.7, False, 0.7), (0.7, True, 1.0)])
def test_share(share: float, expected: float, *, exclusive: bool):
    """With nobody else about, there is nobody to leave a share to."""
    assert PacingConfig(quota_share=share, exclusive=exclusive).share == expected


@pytest.mark.parametrize("origin", QuotaOrigin)
@pytest.mark.parametrize("rate", [5.0, 50.0])
def test_a_named_rate_is_no_quota(rate: float, origin: QuotaOrigin):
    """A rate that somebody named says nothing about the quota: it is never called found, however
    long it is accepted."""
    config = PacingConfig(rate=rate, exclusive=True)
    controller = choose_controller(config, Quota(rate_per_s=20.0, origin=origin), 0.0)
    hand = Hand(controller)
    hand.run(lambda _: True, 120)
    assert controller.found() is None
