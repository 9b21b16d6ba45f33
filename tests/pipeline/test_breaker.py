"""The breaker's counting, without a run."""

from __future__ import annotations

from bulk_updater.config import MaxFailures
from bulk_updater.pipeline.breaker import Breaker


def test_the_breaker_counts_each_operation_by_itself():
    """Another operation's successes end no series, and its failures lengthen none."""
    breaker = Breaker(MaxFailures(in_a_row=3, share=None))
    for _ in range(2):
        assert breaker.failed("update_contact", "404") is None
        breaker.updated("update_contact_attributes")
        assert breaker.failed("update_contact_attributes", "404") is None
    assert breaker.failed("update_contact", "400") is None  # another code begins another series
    assert breaker.failed("update_contact", "400") is None
    assert breaker.failed("update_contact", "400") == "on 3 requests in a row"


def test_the_share_is_of_the_first_requests_only():
    """After the first ten, however many fail between successes are no reason to stop."""
    breaker = Breaker(MaxFailures(in_a_row=3, share=0.5, share_of=10))
    for _ in range(5):
        breaker.updated("update_contact")
        assert breaker.failed("update_contact", "404") is None
    for _ in range(100):
        breaker.updated("update_contact")
        assert breaker.failed("update_contact", "404") is None
        assert breaker.failed("update_contact", "404") is None
    assert breaker.failed("update_contact", "404") == "on 3 requests in a row"
