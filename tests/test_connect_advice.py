"""Why a run stopped: one sentence, in our own words, that a person can act on."""

from __future__ import annotations

import re
import time
from email.utils import formatdate

import pytest
from botocore import exceptions as boto

from bulk_updater.connect import CODES, Scene, advise, translate
from bulk_updater.connect.advice import ADVICE
from bulk_updater.connect.judging import details_of, make_error, measure_clock
from bulk_updater.errors import AccessError, RequestRejected, SendError, Throttled
from bulk_updater.operations import OPERATION_NAMES

INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"
SCENE = Scene("eu-west-1", dict.fromkeys(OPERATION_NAMES, INSTANCE))
DENIED = make_error("AccessDeniedException", 403)


def said(error: SendError, scene: Scene = SCENE, operation: str = "update_contact") -> str:
    return advise(error, "on one request", operation=operation, scene=scene)


def test_a_denial_names_what_to_put_into_the_policy():
    """How many, status and code, the action, the resource: ready to be copied."""
    told = advise(
        DENIED, "on the first 50 requests", operation="update_contact_attributes", scene=SCENE
    )
    assert told == (
        "403 AccessDeniedException on the first 50 requests: the role lacks "
        "connect:UpdateContactAttributes on "
        f"arn:aws:connect:eu-west-1:*:instance/{INSTANCE}/contact/*; allow it and give the same "
        "command again."
    )


@pytest.mark.parametrize(
    ("scene", "resource"),
    [
        (Scene(), "arn:aws:connect:*:*:instance/.../contact/*"),
        (Scene("eu-west-1"), "arn:aws:connect:eu-west-1:*:instance/.../contact/*"),
        (
            Scene("us-gov-west-1", {"update_contact": "i"}),
            "arn:aws-us-gov:connect:us-gov-west-1:*:instance/i/contact/*",
        ),
        (
            Scene("eu-west-1", {"update_contact_attributes": "another"}),
            "arn:aws:connect:eu-west-1:*:instance/.../contact/*",
        ),
        (Scene("eu-west-1", {"update_contact": "{odd}"}), ":instance/{odd}/contact/*"),
    ],
)
def test_the_resource_says_what_is_known_and_no_more(scene: Scene, resource: str):
    """Region, partition and instance stand in it as far as settings and mapping hold them."""
    assert f"{resource}; allow it" in said(DENIED, scene)


@pytest.mark.parametrize("operation", OPERATION_NAMES)
@pytest.mark.parametrize("code", sorted({*CODES, *ADVICE, "NewException", "ChecksumError"}))
@pytest.mark.parametrize("status", [None, 400, 403])
def test_every_code_is_one_sentence(code: str, status: int | None, operation: str):
    """Label, where, cause and cure, in one line with one full stop; no brace is left in it."""
    error = make_error(code, status)
    told = said(error, operation=operation)
    label = code if status is None else f"{status} {error.code}"
    assert told.startswith((f"{label} on one request: ", f"{error.code} on one request: "))
    assert told.count(error.code) == 1 or error.code.isdecimal()
    assert re.fullmatch(r"[^\n{}]+[^.]\.", told)
    assert ". " not in told
    assert "same command" in told


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (boto.EndpointConnectionError(endpoint_url="x", error=ConnectionRefusedError(111, "x")),
         "EndpointConnectionError on one request: nobody answers at the endpoint (Connection re"),
        (boto.ProxyConnectionError(proxy_url="http://me:hunter2@x"), "the proxy cannot be reached"),
        (boto.SSLError(endpoint_url="x", error="x"), "SSLError on one request: the connection"),
        (boto.NoRegionError(), "NoRegionError on one request: the AWS configuration cannot be"),
        (boto.UnauthorizedSSOTokenError(), "the credentials could not be loaded or renewed; look"),
    ],
)  # fmt: skip
def test_where_there_was_no_answer(error: Exception, says: str):
    """The exception's name stands for the code, with what the system says of it, and no URL."""
    told = said(translate(error, "UpdateContact"))
    assert says in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("ahead_s", "says"),
    [
        (420.0, "this machine's clock is 7 min ahead of the service's; set it and"),
        (-420.0, "this machine's clock is 7 min behind the service's; set it and"),
        (3.0, "the session token does not belong to the access key; mend the credentials and"),
        (None, "does not belong to the access key, or this machine's clock is wrong; mend"),
    ],
)  # fmt: skip
def test_a_signature_is_the_clock_s_fault_or_the_secret_s(ahead_s: float | None, says: str):
    """Five minutes are tolerated; beyond them it is the clock, within them it is not."""
    error = make_error("InvalidSignatureException", 403)
    assert says in said(error, Scene("eu-west-1", {}, ahead_s))


def test_only_signatures_are_blamed_on_the_clock():
    """A clock that is off does not change what a denial means."""
    assert "clock" not in said(DENIED, Scene("eu-west-1", {}, 4000.0))


def test_a_wait_of_hours():
    """A service that asks for more patience than a run has is quoted by its time."""
    error = Throttled("x.", code="429", http_status=429, retry_after_s=7200.0)
    told = advise(
        error, "on one request", operation="update_contact", scene=SCENE, asks_too_long=True
    )
    assert told.startswith("429 on one request: the service asks to wait 2 h, which is longer")


@pytest.mark.parametrize(("kind", "ends"), [(AccessError, "again."), (RequestRejected, "csv.")])
def test_an_unknown_code_keeps_its_row_s_words(kind: type[SendError], ends: str):
    """What nobody knows is told as its row tells it; rows that failed are named where they are."""
    told = said(
        kind(
            "Something new is wrong; look there (NewError, HTTP 400).",
            code="NewError",
            http_status=400,
        )
    )
    assert told.startswith("400 NewError on one request: something new is wrong; look there; ")
    assert told.endswith(ends)


def test_the_clock_is_measured_by_the_answer_s_date():
    """Seconds ahead or behind, to within what a slow test takes; None without a usable date."""
    for off_s in (0.0, 420.0, -420.0):
        date = formatdate(time.time() - off_s, usegmt=True)
        ahead_s = measure_clock({"date": date})
        assert ahead_s is not None
        assert off_s - 1 <= ahead_s <= off_s + 60
    assert measure_clock({}) is None
    assert measure_clock({"date": "yesterday"}) is None


def test_details_are_what_the_system_said():
    """Code and status are no details, and a message of another form has none."""
    assert details_of(make_error("AccessDenied", 403)) is None
    assert details_of(make_error("", 503)) is None
    assert details_of(AccessError("It is (somehow) wrong.", code="x")) is None
    assert details_of(AccessError("Wrong (SSLError, certificate expired).", code="SSLError")) == (
        "certificate expired"
    )
