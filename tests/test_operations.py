"""The operations, as botocore's service model describes them, and how two requests become one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.operations import OPERATION_NAMES, Shape, get_operation, iter_operations

ATTRIBUTES = get_operation("update_contact_attributes")
CONTACT = get_operation("update_contact")


def test_names():
    """There are two operations, by the names that a mapping calls them."""
    assert OPERATION_NAMES == ("update_contact_attributes", "update_contact")
    assert [operation.name for operation in iter_operations()] == list(OPERATION_NAMES)
    with pytest.raises(KeyError):
        get_operation("update_contact_routing_data")


@pytest.mark.parametrize(
    ("operation", "api_name", "contact_member", "quota_code", "limits"),
    [
        (
            ATTRIBUTES,
            "UpdateContactAttributes",
            "InitialContactId",
            "L-F001E5ED",
            [("Attributes", 32_768, "attributes_too_large")],
        ),
        (
            CONTACT,
            "UpdateContact",
            "ContactId",
            "L-40C15531",
            [("References", 4_096, "references_too_large")],
        ),
    ],
    ids=OPERATION_NAMES,
)
def test_what_is_documented(operation, api_name, contact_member, quota_code, limits):
    """What the model does not say of an operation is as the documentation says."""
    assert operation.api_name == api_name
    assert operation.id_members == {"InstanceId", contact_member}
    assert operation.quota_code == quota_code
    assert [
        (limit.member, limit.max_bytes, limit.rule) for limit in operation.byte_limits
    ] == limits


def test_members_are_those_of_the_model():
    """Members, required members and limits come from the model, those of both seeds among them."""
    assert list(ATTRIBUTES.shape.members) == ["InitialContactId", "InstanceId", "Attributes"]
    assert ATTRIBUTES.shape.required == ("InitialContactId", "InstanceId", "Attributes")
    assert set(CONTACT.shape.members) >= {
        *("InstanceId", "ContactId", "Name", "Description", "References", "SegmentAttributes"),
        *("QueueInfo", "UserInfo", "CustomerEndpoint", "SystemEndpoint"),
    }
    assert CONTACT.shape.required == ("InstanceId", "ContactId")
    assert CONTACT.written_members[:3] == ("Name", "Description", "References")
    name, references = CONTACT.shape.members["Name"], CONTACT.shape.members["References"]
    assert (name.kind, name.minimum, name.maximum) == ("string", 0, 1024)
    assert (references.key.minimum, references.key.maximum) == (1, 4096)
    reference = references.value
    assert set(reference.members) >= {"Value", "Type", "Status", "Arn", "StatusReason"}
    assert reference.required == ("Type",)
    assert reference.members["Type"].enum[:2] == ("URL", "ATTACHMENT")
    assert reference.members["Arn"].expression.match("arn:aws")
    segment = CONTACT.shape.members["SegmentAttributes"].value
    assert {name: member.kind for name, member in segment.members.items()}.items() >= {
        ("ValueString", "string"),
        ("ValueMap", "map"),
        ("ValueInteger", "integer"),
    }
    assert segment.members["ValueMap"].value.members["ValueMap"].value.name == segment.name


def test_a_pattern_that_python_does_not_understand_checks_nothing():
    """A pattern in another dialect leaves the last word to the service."""

    class Foreign:
        metadata = {"pattern": r"^[\p{L}]++\Q$"}  # noqa: RUF012 - the shape of botocore's own

    assert Shape(Foreign()).expression is None


class TestNames:
    def test_of_attributes(self):
        """What a request of attributes writes are its keys."""
        params = {"InstanceId": "i", "InitialContactId": "c", "Attributes": {"b": "", "a": "x"}}
        assert ATTRIBUTES.written_names(params) == ("b", "a")

    def test_of_a_contact(self):
        """What a request of a contact writes are its members, and the keys of those that have."""
        params = {
            "InstanceId": "i",
            "ContactId": "c",
            "SegmentAttributes": {"connect:x": {"ValueString": "s"}},
            "References": {"r": {"Type": "URL"}, "s": {"Type": "URL"}},
            "Name": "n",
            "UserInfo": {"UserId": "u"},
        }
        assert CONTACT.written_names(params) == (
            "Name",
            "References.r",
            "References.s",
            "SegmentAttributes.connect:x",
            "UserInfo",
        )


def test_bytes():
    """Keys of maps and every text count, in UTF-8; ids and names of members do not."""
    params = {
        "InstanceId": "i",
        "ContactId": "c",
        "Name": "né",
        "References": {"ü": {"Type": "URL", "Value": "€"}},
        "SegmentAttributes": {"a": {"ValueInteger": 42, "ValueList": [{"ValueString": "😀"}]}},
    }
    assert CONTACT.member_bytes("References", params) == 2 + 3 + 3
    assert CONTACT.member_bytes("Description", params) == 0
    assert CONTACT.payload_bytes(params) == 3 + 8 + (1 + 2 + 4)


TEXT = st.sampled_from(["", "x", "y"])
KEYS = st.sampled_from(["k", "l", "m"])
REFERENCES = st.dictionaries(
    KEYS, st.fixed_dictionaries({"Type": st.just("URL")}, optional={"Value": TEXT})
)
SEGMENTS = st.dictionaries(
    KEYS,
    st.fixed_dictionaries(
        {},
        optional={
            "ValueString": TEXT,
            "ValueInteger": st.integers(0, 2),
            "ValueMap": st.dictionaries(KEYS, st.fixed_dictionaries({"ValueString": TEXT})),
            "ValueList": st.lists(st.fixed_dictionaries({"ValueString": TEXT}), max_size=2),
        },
    ),
)
IDS = {"InstanceId": "i", "ContactId": "c"}
CONTACTS = st.fixed_dictionaries(
    {},
    optional={
        "Name": TEXT,
        "Description": TEXT,
        "References": REFERENCES,
        "SegmentAttributes": SEGMENTS,
        "UserInfo": st.fixed_dictionaries({"UserId": st.just("u")}),
        "CustomerEndpoint": st.fixed_dictionaries({}, optional={"Type": TEXT, "Address": TEXT}),
    },
).map(lambda members: IDS | members)


def by_whole(state, request):
    """The service that replaces whole members."""
    return state | request


def by_key(state, request):
    """The service that keeps the keys of a map that a request does not name."""
    return state | {
        member: {**state[member], **value}
        if isinstance(value, dict) and isinstance(state.get(member), dict)
        else value
        for member, value in request.items()
    }


def by_leaf(state, request):
    """The service that keeps whatever a request does not name, at any depth."""
    if not isinstance(state, dict) or not isinstance(request, dict):
        return request
    return state | {name: by_leaf(state.get(name), value) for name, value in request.items()}


SERVICES = (by_whole, by_key, by_leaf)


@settings(deadline=None, max_examples=300)
@given(CONTACTS, CONTACTS, CONTACTS)
def test_merged_contacts_end_alike(state, earlier, later):
    """One merged request leaves a contact as two would, however the service reads them."""
    merged = CONTACT.merge(earlier, later)
    if merged is None:
        return
    for service in SERVICES:
        assert service(state, merged) == service(service(state, earlier), later)


@settings(deadline=None, max_examples=300)
@given(CONTACTS, CONTACTS)
def test_contacts_are_merged_wherever_they_can_be(earlier, later):
    """Two requests are needed only where no single one ends alike for every reading."""
    empty = {}
    ends = [service(service(empty, earlier), later) for service in SERVICES]
    alike = all(end == ends[0] for end in ends)
    assert (CONTACT.merge(earlier, later) is not None) == alike


ATTRIBUTE_REQUESTS = st.dictionaries(st.sampled_from("abc"), TEXT, min_size=1).map(
    lambda attributes: {"InstanceId": "i", "InitialContactId": "c", "Attributes": attributes}
)


@settings(deadline=None)
@given(ATTRIBUTE_REQUESTS, ATTRIBUTE_REQUESTS, ATTRIBUTE_REQUESTS)
def test_merged_attributes_end_alike(state, earlier, later):
    """Attributes are merged key by key, the later row's winning, and always can be."""
    merged = ATTRIBUTES.merge(earlier, later)
    assert by_key(state, merged) == by_key(by_key(state, earlier), later)
    assert earlier["Attributes"].keys() | later["Attributes"].keys() == merged["Attributes"].keys()


def test_merging_changes_neither_request():
    """The two requests stay as they were."""
    earlier = {"InstanceId": "i", "InitialContactId": "c", "Attributes": {"a": "1", "b": "1"}}
    later = {"InstanceId": "i", "InitialContactId": "c", "Attributes": {"b": "2"}}
    merged = ATTRIBUTES.merge(earlier, later)
    merged["Attributes"]["c"] = "3"
    assert earlier["Attributes"] == {"a": "1", "b": "1"}
    assert later["Attributes"] == {"b": "2"}


@pytest.mark.parametrize(("room", "fits"), [(0, True), (1, False)])
def test_a_merged_request_keeps_the_limit(room, fits):
    """Two requests that fit alone are merged only where they fit together."""
    ids = {"InstanceId": "i", "InitialContactId": "c"}
    earlier = ids | {"Attributes": {"a": "x" * 20_000}}
    later = ids | {"Attributes": {"b": "é" * ((32_768 - 20_002) // 2) + "x" * room}}
    merged = ATTRIBUTES.merge(earlier, later)
    assert (merged is not None) == fits
    if fits:
        assert ATTRIBUTES.payload_bytes(merged) == 32_768


WRITTEN = CONTACTS.map(lambda request: {name: value for name, value in request.items() if value})


@settings(max_examples=300)
@given(CONTACTS, WRITTEN, WRITTEN)
def test_what_is_left_of_a_contact_undoes_nothing(state, earlier, later):
    """Sent after a later row's request, it changes no member of that, however it is read."""
    left = CONTACT.without(earlier, CONTACT.written_names(later))
    for service in SERVICES:
        after = service(state, later)
        again = after if left is None else service(after, left)
        assert {name: again[name] for name in later} == {name: after[name] for name in later}


@settings(max_examples=300)
@given(WRITTEN, WRITTEN)
def test_what_no_later_row_wrote_is_left(earlier, later):
    """Members that a later request does not have are kept whole; the ids always are."""
    left = CONTACT.without(earlier, CONTACT.written_names(later))
    kept = {name: value for name, value in earlier.items() if name in IDS or name not in later}
    assert left == (kept if kept.keys() - IDS.keys() else None)


@given(ATTRIBUTE_REQUESTS, ATTRIBUTE_REQUESTS)
def test_attributes_are_left_key_by_key(earlier, later):
    """Sent late, the rest ends as the two requests in order would; None where there is no rest."""
    left = ATTRIBUTES.without(earlier, ATTRIBUTES.written_names(later))
    in_order = by_key(earlier, later)["Attributes"]
    if left is None:
        assert in_order == later["Attributes"]
    else:
        assert left["Attributes"]
        assert not left["Attributes"].keys() & later["Attributes"].keys()
        assert by_key(later, left)["Attributes"] == in_order


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ((), {"Name": "n", "References": {"a": {"Type": "URL"}}}),
        (("References.b",), {"Name": "n"}),
        (("ReferencesX", "Nam", "a"), {"Name": "n", "References": {"a": {"Type": "URL"}}}),
        (("Name",), {"References": {"a": {"Type": "URL"}}}),
        (("Name", "References.a"), None),
    ],
)
def test_names_of_members_and_of_their_keys(names, left):
    """One key of References takes the whole member with it; a name that only begins alike none."""
    request = IDS | {"Name": "n", "References": {"a": {"Type": "URL"}}}
    assert CONTACT.without(request, names) == (None if left is None else IDS | left)
    assert request == IDS | {"Name": "n", "References": {"a": {"Type": "URL"}}}


def test_a_required_member_is_not_left_out():
    """Attributes that are all written leave no request, although the ids are there."""
    request = {"InstanceId": "i", "InitialContactId": "c", "Attributes": {"a": "1", "b": "2"}}
    assert ATTRIBUTES.without(request, {"a"}) == request | {"Attributes": {"b": "2"}}
    assert ATTRIBUTES.without(request, {"a", "b", "c"}) is None
    assert ATTRIBUTES.without(request, ()) == request
