"""Every documented limit at its edge: what just fits is stored, one more is refused by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.sandbox.contacts import KnownContacts
from bulk_updater.sandbox.errors import ServiceError
from bulk_updater.sandbox.state import Receipt, State

INSTANCE, CONTACT = "i", "c"
ATTRIBUTES = {"InstanceId": INSTANCE, "InitialContactId": CONTACT, "Attributes": {"a": "1"}}
CONTACTS = {"InstanceId": INSTANCE, "ContactId": CONTACT, "Name": "n"}
INVALID = "InvalidRequestException"
PARAMETER = "InvalidParameterException"


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"ValueString": "x"}
    for _ in range(depth):
        value = {"ValueMap": {"inner": {"ValueList": [value]}}}
    return value


async def call(connect, request):
    operation = connect.update_contact if "ContactId" in request else None
    return await (operation or connect.update_contact_attributes)(**request)


async def refused(connect, request) -> tuple[int, str, str]:
    with pytest.raises(connect.exceptions.ClientError) as caught:
        await call(connect, request)
    response = caught.value.response
    # botocore knows the class of every code that the operation models.
    assert type(caught.value).__name__ == response["Error"]["Code"]
    assert response["ResponseMetadata"]["RequestId"]
    return (
        response["ResponseMetadata"]["HTTPStatusCode"],
        response["Error"]["Code"],
        response["Error"]["Message"],
    )


def reference(**members: Any) -> dict[str, Any]:
    return CONTACTS | {"References": {"r": {"Type": "URL"} | members}}


def segment(value: Any, key: str = "s") -> dict[str, Any]:
    return CONTACTS | {"SegmentAttributes": {key: value}}


EDGES = [
    (
        "instance id",
        ATTRIBUTES | {"InstanceId": "é" * 100},
        ATTRIBUTES | {"InstanceId": "é" * 101},
        PARAMETER,
        "InstanceId must be 1 to 100 characters long; it has 101.",
    ),
    (
        "contact id",
        ATTRIBUTES | {"InitialContactId": "x" * 256},
        ATTRIBUTES | {"InitialContactId": "x" * 257},
        PARAMETER,
        "InitialContactId must be 1 to 256 characters long; it has 257.",
    ),
    (
        "contact id in the path",
        CONTACTS | {"ContactId": "é" * 256},
        CONTACTS | {"ContactId": "é" * 257},
        PARAMETER,
        "ContactId must be 1 to 256 characters long; it has 257.",
    ),
    (
        "no contact id",
        ATTRIBUTES | {"InitialContactId": "x"},
        ATTRIBUTES | {"InitialContactId": ""},
        PARAMETER,
        "InitialContactId must be 1 to 256 characters long; it has 0.",
    ),
    (
        "attribute key characters",
        ATTRIBUTES | {"Attributes": {"aZ09_-": "x"}},
        ATTRIBUTES | {"Attributes": {"First Name": "x"}},
        PARAMETER,
        "An attribute's name may hold alphanumeric, dash and underscore characters only.",
    ),
    (
        "attribute key letters",
        ATTRIBUTES | {"Attributes": {"e": "x"}},
        ATTRIBUTES | {"Attributes": {"é": "x"}},
        PARAMETER,
        "An attribute's name may hold alphanumeric, dash and underscore characters only.",
    ),
    (
        "attribute key length",
        ATTRIBUTES | {"Attributes": {"k" * 32_767: "x"}},
        ATTRIBUTES | {"Attributes": {"k" * 32_768: ""}},
        PARAMETER,
        "An attribute's name must be 1 to 32767 characters long; it has 32768.",
    ),
    (
        "attribute key missing",
        ATTRIBUTES | {"Attributes": {"k": "x"}},
        ATTRIBUTES | {"Attributes": {"": "x"}},
        PARAMETER,
        "An attribute's name must be 1 to 32767 characters long; it has 0.",
    ),
    (
        "attribute value",
        ATTRIBUTES | {"Attributes": {"k": "x" * 32_767}},
        ATTRIBUTES | {"Attributes": {"k": "x" * 32_768}},
        PARAMETER,
        "An attribute's value must be 0 to 32767 characters long; it has 32768.",
    ),
    (
        "attribute bytes",
        ATTRIBUTES | {"Attributes": {"ab": "é" * 16_383}},
        ATTRIBUTES | {"InitialContactId": "d", "Attributes": {"abc": "é" * 16_383}},
        INVALID,
        "The contact's attributes must be 32768 bytes at the most; with these they would be 32769.",
    ),
    (
        "name",
        CONTACTS | {"Name": "é" * 1024},
        CONTACTS | {"Name": "é" * 1025},
        PARAMETER,
        "Name must be 0 to 1024 characters long; it has 1025.",
    ),
    (
        "description",
        CONTACTS | {"Description": "é" * 4096},
        CONTACTS | {"Description": "é" * 4097},
        PARAMETER,
        "Description must be 0 to 4096 characters long; it has 4097.",
    ),
    (
        "reference bytes",
        CONTACTS | {"References": {"rr": {"Type": "URL", "Value": "é" * 2047}}},
        CONTACTS | {"ContactId": "d", "References": {"rrr": {"Type": "URL", "Value": "é" * 2047}}},
        INVALID,
        "The contact's references must be 4096 bytes at the most; with these they would be 4097.",
    ),
    (
        "reference key",
        CONTACTS | {"References": {"r" * 4096: {"Type": "URL"}}},
        CONTACTS | {"References": {"r" * 4097: {"Type": "URL"}}},
        PARAMETER,
        "A reference's name must be 1 to 4096 characters long; it has 4097.",
    ),
    (
        "reference value",
        reference(Value="x" * 4095),
        reference(Value="x" * 4097),
        PARAMETER,
        "A reference's Value must be 0 to 4096 characters long; it has 4097.",
    ),
    (
        "reference status reason",
        reference(StatusReason="x" * 100),
        reference(StatusReason="x" * 101),
        PARAMETER,
        "A reference's StatusReason must be 0 to 100 characters long; it has 101.",
    ),
    (
        "reference ARN, short",
        reference(Arn="a" * 20),
        reference(Arn="a" * 19),
        PARAMETER,
        "A reference's Arn must be 20 to 256 characters long; it has 19.",
    ),
    (
        "reference ARN, long",
        reference(Arn="a" * 256),
        reference(Arn="a" * 257),
        PARAMETER,
        "A reference's Arn must be 20 to 256 characters long; it has 257.",
    ),
    (
        "reference ARN characters",
        reference(Arn="arn:aws:connect:eu/1 x"),
        reference(Arn=" arn:aws:connect:eu/1"),
        PARAMETER,
        "A reference's Arn must begin like an ARN.",
    ),
    (
        "segment attribute key",
        segment({"ValueString": "x"}, "s" * 128),
        segment({"ValueString": "x"}, "s" * 129),
        PARAMETER,
        "A segment attribute's name must be 1 to 128 characters long; it has 129.",
    ),
    (
        "segment attribute key characters",
        segment({"ValueInteger": 1}, "connect:ContactExpiry"),
        segment({"ValueInteger": 1}, "other:ContactExpiry"),
        PARAMETER,
        (
            "A segment attribute's name may hold alphanumeric, dash and underscore characters "
            "only, after `connect:` where it is the system's."
        ),
    ),
    (
        "segment attribute text",
        segment({"ValueString": "é" * 1024}),
        segment({"ValueString": "é" * 1025}),
        PARAMETER,
        "ValueString must be 0 to 1024 characters long; it has 1025.",
    ),
    (
        "segment attribute ARN",
        segment({"ValueArn": "x" * 1024}),
        segment({"ValueArn": "x" * 1025}),
        PARAMETER,
        "ValueArn must be 0 to 1024 characters long; it has 1025.",
    ),
    (
        "segment attribute integer",
        segment({"ValueInteger": 2**31 - 1}),
        segment({"ValueInteger": 2**31}),
        PARAMETER,
        "ValueInteger must be an integer of 32 bits.",
    ),
    (
        "segment attribute map key",
        segment({"ValueMap": {"m" * 128: {"ValueInteger": -(2**31)}}}),
        segment({"ValueMap": {"m" * 129: {"ValueInteger": 1}}}),
        PARAMETER,
        "A name in ValueMap must be 1 to 128 characters long; it has 129.",
    ),
    (
        "segment attribute depth",
        segment(nested(15)),
        segment(nested(16)),
        INVALID,
        "The body of the request nests more than 64 levels.",
    ),
    (
        "segment attribute without a value",
        segment({"ValueMap": {}}),
        segment({}),
        PARAMETER,
        "A segment attribute's value must hold a value.",
    ),
    (
        "user id",
        CONTACTS | {"UserInfo": {"UserId": "u" * 256}},
        CONTACTS | {"UserInfo": {"UserId": "u" * 257}},
        PARAMETER,
        "UserInfo.UserId must be 1 to 256 characters long; it has 257.",
    ),
    (
        "endpoint address",
        CONTACTS | {"SystemEndpoint": {"Type": "VOIP", "Address": "a" * 256}},
        CONTACTS | {"SystemEndpoint": {"Type": "VOIP", "Address": "a" * 257}},
        PARAMETER,
        "SystemEndpoint.Address must be 0 to 256 characters long; it has 257.",
    ),
]


@pytest.mark.parametrize(
    ("fits", "breaks", "error"),
    [(fits, breaks, error) for _, fits, breaks, *error in EDGES],
    ids=[edge[0] for edge in EDGES],
)
async def test_what_just_fits_is_stored_and_one_more_is_refused(
    sandbox, connect, fits, breaks, error
):
    """A limit lies exactly where the documentation puts it, and its error says which it is."""
    await call(connect, fits)
    before = sandbox.state.to_json()
    assert await refused(connect, breaks) == (400, *error)
    assert sandbox.state.to_json() == before
    assert len(sandbox.state.log) == 1


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ({"InstanceId": "i", "Attributes": {}}, INVALID, "InitialContactId is missing"),
        ({"InstanceId": "i", "InitialContactId": "c"}, INVALID, "Attributes is missing"),
        ({"InitialContactId": "c", "Attributes": {}}, INVALID, "InstanceId is missing"),
        (ATTRIBUTES | {"InstanceId": 7}, PARAMETER, "InstanceId must be a string"),
        (ATTRIBUTES | {"Attributes": "x"}, PARAMETER, "Attributes must be an object"),
        (ATTRIBUTES | {"Attributes": ["a"]}, PARAMETER, "Attributes must be an object"),
        (ATTRIBUTES | {"Attributes": {"a": None}}, PARAMETER, "value must be a string"),
        (ATTRIBUTES | {"Attributes": {"a": 1}}, PARAMETER, "value must be a string"),
        (ATTRIBUTES | {"Attributes": {"a": True}}, PARAMETER, "value must be a string"),
        (ATTRIBUTES | {"Attributes": {"a": ["1"]}}, PARAMETER, "value must be a string"),
        (ATTRIBUTES | {"Attributes": {"a": "\ud800"}}, PARAMETER, "must be Unicode text"),
        (ATTRIBUTES | {"Attributes": {"a": float("nan")}}, INVALID, "not valid JSON"),
        (ATTRIBUTES | {"Attributes": {"a": float("inf")}}, INVALID, "not valid JSON"),
        ({"InstanceId": "i", "ContactId": "c"}, INVALID, "At least one field"),
        ({"InstanceId": "i", "ContactId": "c", "References": {}}, INVALID, "At least one field"),
        (CONTACTS | {"Name": None}, PARAMETER, "Name must be a string"),
        (CONTACTS | {"Description": 5}, PARAMETER, "Description must be a string"),
        (CONTACTS | {"References": []}, PARAMETER, "References must be an object"),
        (CONTACTS | {"References": {"r": "x"}}, PARAMETER, "A reference must be an object"),
        (CONTACTS | {"References": {"r": {"Value": "x"}}}, INVALID, "member Type is missing"),
        (reference(Type="NOPE"), PARAMETER, "Type must be one of URL, ATTACHMENT"),
        (reference(Type=["URL"]), PARAMETER, "Type must be one of URL, ATTACHMENT"),
        (reference(Status="NOPE"), PARAMETER, "Status must be one of AVAILABLE"),
        (reference(Value=1), PARAMETER, "Value must be a string"),
        (segment("x"), PARAMETER, "value must be an object"),
        (segment({"ValueInteger": True}), PARAMETER, "an integer of 32 bits"),
        (segment({"ValueInteger": 1.5}), PARAMETER, "an integer of 32 bits"),
        (segment({"ValueList": {}}), PARAMETER, "ValueList must be a list"),
        (CONTACTS | {"QueueInfo": "q"}, PARAMETER, "QueueInfo must be an object"),
        (CONTACTS | {"CustomerEndpoint": {"Type": "X"}}, PARAMETER, "must be one of TELEPHONE"),
    ],
)
async def test_a_request_of_the_wrong_shape_is_refused_as_the_model_says(
    sandbox, call_unchecked, request_, code, message
):
    """Whatever is missing or of the wrong kind is a modelled 400, and nothing is stored."""
    answer = await call_unchecked(request_)
    assert (answer.status, answer.code) == (400, code)
    assert message in answer.json["message"]
    assert answer.json["Message"] == answer.json["message"]
    assert sandbox.state.instances == {}


@pytest.fixture
def call_unchecked(sandbox):
    """Send a request that the SDK would not let pass."""
    import json

    from .helpers import paws

    async def send(request: dict[str, Any]):
        members = dict(request)
        path = "/contact/attributes"
        if "ContactId" in members:
            path = f"/contacts/{members.pop('InstanceId')}/{members.pop('ContactId')}"
        return await paws(sandbox, "POST", path, json.dumps(members).encode())

    return send


@pytest.mark.parametrize("kind", ["EMAIL_MESSAGE_PLAIN_TEXT_REDACTED", "EMAIL_MESSAGE_REDACTED"])
async def test_values_are_known_that_are_newer_than_the_sdk(connect, kind):
    """Reference types, a status and a member that the installed SDK does not know are accepted."""
    await call(connect, reference(Type=kind, Status="DRAFTING"))


async def test_newer_recipients_are_known(sandbox, call_unchecked):
    """AdditionalRecipients holds up to 50 addresses."""
    address = {"Address": "a@example.com", "DisplayName": "A"}
    for n, status in ((50, 200), (51, 400)):
        recipients = {"CcEmailAddresses": [address] * n}
        request = {"InstanceId": "i", "ContactId": "c", "AdditionalRecipients": recipients}
        assert (await call_unchecked(request)).status == status
    stored = sandbox.state.contact("i", "c").other["AdditionalRecipients"]
    assert len(stored["CcEmailAddresses"]) == 50


async def test_unknown_members_are_ignored(sandbox, call_unchecked):
    """A member that no model knows changes nothing, as at AWS."""
    answer = await call_unchecked(ATTRIBUTES | {"Attribute": {"b": "2"}})
    assert answer.status == 200
    assert sandbox.state.contact(INSTANCE, CONTACT).attributes == {"a": "1"}


async def test_reading_has_its_limits_too(connect):
    """An overlong id is refused by the read operations, with a code that each of them models."""
    with pytest.raises(connect.exceptions.InvalidRequestException):
        await connect.get_contact_attributes(InstanceId="i", InitialContactId="x" * 257)
    with pytest.raises(connect.exceptions.InvalidParameterException):
        await connect.describe_contact(InstanceId="i" * 101, ContactId="x")


async def test_bytes_count_over_what_is_stored_and_what_comes(sandbox, connect):
    """32,768 bytes are shared by all attributes; replacing and erasing give bytes back."""
    steps = [
        ({"a": "x" * 16_383}, True),  # 16,384
        ({"b": "x" * 16_383}, True),  # 32,768: full
        ({"c": "x"}, False),
        ({"c": ""}, True),  # takes no room
        ({"a": "x" * 16_384}, False),
        ({"a": "x" * 16_382}, True),  # 32,767
        ({"c": "x"}, False),
        ({"a": "", "c": "x" * 16_383}, True),  # 32,768, with a gone in the same request
        ({"d": "x"}, False),
        ({"b": ""}, True),
        ({"d": "é"}, True),
    ]
    for attributes, fits in steps:
        request = ATTRIBUTES | {"Attributes": attributes}
        if fits:
            await call(connect, request)
        else:
            assert (await refused(connect, request))[1] == INVALID
    contact = sandbox.state.contact(INSTANCE, CONTACT)
    assert {key: len(value) for key, value in contact.attributes.items()} == {"c": 16_383, "d": 1}
    assert contact.attributes_bytes == 16_384 + 3


async def test_reference_bytes_count_over_what_is_stored_and_what_comes(sandbox, connect):
    """4,096 bytes are shared by all references; replacing one gives its bytes back."""
    steps = [("a", 2_047, True), ("b", 2_047, True), ("c", 1, False), ("a", 2_000, True)]
    for key, n_bytes, fits in [*steps, ("c", 46, True), ("d", 0, False)]:
        request = CONTACTS | {"References": {key: {"Type": "STRING", "Value": "x" * n_bytes}}}
        if fits:
            await call(connect, request)
        else:
            assert (await refused(connect, request))[1] == INVALID
    assert sandbox.state.contact(INSTANCE, CONTACT).references_bytes == 4_096


def new_state() -> State:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return State(KnownContacts(), clock=lambda: 0.0, now=lambda: at, log_size=10)


def outcome(operation, request) -> ServiceError | None:
    try:
        operation(request, Receipt("r", 0.0))
    except ServiceError as error:
        return error
    return None


TEXTS = st.text("ab:é\x00\ud800", max_size=4)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
INNER = st.sampled_from(["Type", "Value", "Arn", "ValueMap", "ValueList", "Id", "Address"])
HALF_RIGHT = JSON | st.dictionaries(TEXTS, st.dictionaries(INNER, JSON, max_size=3), max_size=3)
MEMBERS = (
    "InstanceId",
    "ContactId",
    "InitialContactId",
    "Attributes",
    "Name",
    "References",
    "SegmentAttributes",
    "QueueInfo",
    "UserInfo",
    "CustomerEndpoint",
    "AdditionalRecipients",
)


@given(
    request=st.dictionaries(st.sampled_from(MEMBERS), HALF_RIGHT, max_size=4),
    with_ids=st.booleans(),
)
def test_any_json_at_all_is_stored_or_refused(request, with_ids):
    """No request, however wrong, does anything but succeed or raise an error of the service."""
    if with_ids:
        request = request | {"InstanceId": "i", "ContactId": "c", "InitialContactId": "c"}
    state = new_state()
    for operation in (state.update_contact, state.update_contact_attributes):
        error = outcome(operation, request)
        assert error is None or error.http_status == 400
    state.to_json()


@given(
    writes=st.lists(
        st.dictionaries(
            st.sampled_from("abcd"), st.text("xé🦉", max_size=4).map(lambda text: text * 2_000)
        ),
        max_size=12,
    )
)
def test_the_bytes_kept_are_those_of_what_is_stored(writes):
    """After any writes the count is that of the attributes, below the limit, and none is empty."""
    state = new_state()
    for attributes in writes:
        request = {"InstanceId": "i", "InitialContactId": "c", "Attributes": attributes}
        error = outcome(state.update_contact_attributes, request)
        assert error is None or error.code == INVALID
        contact = state.contact("i", "c")
        counted = sum(len((k + v).encode()) for k, v in contact.attributes.items())
        assert contact.attributes_bytes == counted <= 32_768
        assert all(contact.attributes.values())
