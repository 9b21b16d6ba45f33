"""How long a run takes, and the words for why."""

from __future__ import annotations

import pytest

from bulk_updater.config import PacingConfig
from bulk_updater.model import Quota, QuotaOrigin
from bulk_updater.operations import get_operation
from bulk_updater.pipeline.estimate import at_other_quotas, describe_long_run, describe_pace

OPERATION = get_operation("update_contact")
ACCOUNT = "123456789012"
APPLIED = Quota(rate_per_s=10.0, origin=QuotaOrigin.APPLIED)
LEARNT = Quota(rate_per_s=19.87, origin=QuotaOrigin.LEARNT)
DOCUMENTED = Quota(rate_per_s=10.0, origin=QuotaOrigin.DOCUMENTED, unread="nobody answered")


@pytest.mark.parametrize(
    ("pacing", "quota", "says"),
    [
        (
            PacingConfig(),
            APPLIED,
            "at most 8/s, 80 % of the quota of 10/s that applies to account 123456789012",
        ),
        (
            PacingConfig(quota_share=0.29),
            APPLIED,
            "at most 2.9/s, 29 % of the quota of 10/s that applies to account 123456789012",
        ),
        (
            PacingConfig(),
            DOCUMENTED,
            (
                "at most 8/s, 80 % of the documented quota of 10/s; what applies to the account "
                "could not be read: nobody answered"
            ),
        ),
        (
            PacingConfig(exclusive=True),
            APPLIED,
            "at most 10/s, all of the quota of 10/s that applies to account 123456789012",
        ),
        (PacingConfig(rate=2.55), DOCUMENTED, "at most 2.55/s, as --rate says"),
        (PacingConfig(rate=2.55, exclusive=True), DOCUMENTED, "at most 2.55/s, as --rate says"),
        (
            PacingConfig(rate="auto"),
            LEARNT,
            (
                "begins from the 19.87/s that an earlier run found, finds out how much there is, "
                "and takes 80 % of it"
            ),
        ),
        (
            PacingConfig(rate="auto", exclusive=True),
            DOCUMENTED,
            (
                "begins from the documented quota of 10/s, finds out how much there is, and takes "
                "all of it; what applies to the account could not be read: nobody answered"
            ),
        ),
    ],
)
def test_the_pace_is_said_with_whose_word_it_is(pacing, quota, says):
    """How fast, which part of what, who says so, and what could not be read."""
    assert describe_pace(pacing, quota, ACCOUNT) == says


def test_an_account_that_nobody_knows_is_not_named():
    """An endpoint on this machine has none."""
    assert (
        describe_pace(PacingConfig(), APPLIED, None)
        == "at most 8/s, 80 % of the applied quota of 10/s"
    )


@pytest.mark.parametrize(
    ("quota_per_s", "others"),
    [
        (10.0, [20, 50, 100]),
        (2.0, [5, 10, 20]),
        (25.0, [50, 100, 200]),
        (99.9, [100, 200, 500]),
        (0.07, [0.1, 0.2, 0.5]),
    ],
)
def test_other_quotas_are_the_next_round_figures(quota_per_s, others):
    """1, 2 and 5 and their tens; each with the time at the same share of it."""
    quota = Quota(rate_per_s=quota_per_s, origin=QuotaOrigin.APPLIED)
    found = at_other_quotas(1_000_000, PacingConfig(), quota)
    assert [each.rate_per_s for each in found] == pytest.approx(others)
    assert [each.takes_s for each in found] == pytest.approx(
        [1_000_000 / (0.8 * rate) for rate in others]
    )


def test_an_hour_is_not_long():
    """Only more than an hour is worth asking AWS."""
    assert at_other_quotas(28_800, PacingConfig(), APPLIED) == ()
    assert len(at_other_quotas(28_801, PacingConfig(), APPLIED)) == 3
    assert describe_long_run(OPERATION, 28_800, PacingConfig(), APPLIED) == ()


def test_before_a_long_run_the_time_and_what_would_shorten_it_are_said():
    """A million: a day and a half, three other quotas, and the code."""
    assert describe_long_run(OPERATION, 1_000_000, PacingConfig(), APPLIED) == (
        "update_contact: up to 1,000,000 requests to go, which take 1 d 10 h at 8/s.",
        (
            "update_contact: with a quota of 20/s 17 h 21 min, 50/s 6 h 56 min, 100/s 3 h 28 min. "
            "AWS raises it on request; its code is L-40C15531."
        ),
    )


def test_a_rate_that_was_named_is_nothing_that_aws_raises():
    """Only the time is said."""
    pacing = PacingConfig(rate=5)
    assert len(describe_long_run(OPERATION, 1_000_000, pacing, DOCUMENTED)) == 1
    assert at_other_quotas(1_000_000, pacing, DOCUMENTED) == ()
