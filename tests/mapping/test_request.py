"""The request in the mapping file, against the service model."""

from __future__ import annotations

import json

import pytest
from botocore.utils import ArgumentGenerator
from botocore.validate import ParamValidator

from bulk_updater.mapping import skeleton
from bulk_updater.model import Outcome, Request
from bulk_updater.operations import get_operation, iter_operations

from .helpers import INSTANCE, attributes, contact, entries, entry, invalid, parse, refusal, sent

ALL_OF_UPDATE_CONTACT = """\
update_contact:
  InstanceId: 12345678-90ab-cdef-1234-567890abcdef
  ContactId: "{id}"
  Name: "{C}"
  Description: "{C}"
  References:
    string:
      Value: "{C}"
      Type: URL
      Status: AVAILABLE
      Arn: "arn:aws:connect:eu-west-2:1:{C}"
      StatusReason: "{C}"
  SegmentAttributes:
    string:
      ValueString: "{C}"
      ValueMap:
        string:
          ValueString: "{C}"
          ValueMap: {string: {ValueInteger: "{N}"}}
          ValueInteger: "{N}"
          ValueList: [{ValueInteger: "{N}"}]
          ValueArn: "{C}"
      ValueInteger: 123
      ValueList:
        - ValueString: "{C}"
        - ValueList: [{ValueInteger: "{N}"}, {ValueMap: {string: {ValueArn: "{C}"}}}]
      ValueArn: "{C}"
  QueueInfo: {Id: "{C}"}
  UserInfo: {UserId: "{C}"}
  CustomerEndpoint: {Type: TELEPHONE_NUMBER, Address: "{C}"}
  SystemEndpoint: {Type: VOIP, Address: "{C}"}
"""


def judged(operation, params):
    """What botocore's own validator says of a request."""
    return ParamValidator().validate(params, operation.shape._shape).generate_report()


def members_of(value):
    """Every member name in a request, at any depth."""
    if isinstance(value, dict):
        return set(value).union(*map(members_of, value.values()))
    return set().union(*map(members_of, value)) if isinstance(value, list) else set()


class TestAllMembers:
    def test_of_update_contact(self):
        """Every member of UpdateContact can be written, nested ones too, as boto3 takes it."""
        found = entry(ALL_OF_UPDATE_CONTACT, C="v", N="0042")
        assert judged(get_operation("update_contact"), found.params) == ""
        assert members_of(found.params) >= set(get_operation("update_contact").shape.members)
        nested = "Value Type Status Arn StatusReason ValueString ValueMap ValueInteger ValueList"
        assert members_of(found.params) >= {*nested.split(), "ValueArn", "Id", "UserId", "Address"}
        segment = found.params["SegmentAttributes"]["string"]
        assert segment["ValueInteger"] == 123
        assert segment["ValueMap"]["string"]["ValueInteger"] == 42
        assert segment["ValueMap"]["string"]["ValueMap"] == {"string": {"ValueInteger": 42}}
        assert segment["ValueList"] == [
            {"ValueString": "v"},
            {"ValueList": [{"ValueInteger": 42}, {"ValueMap": {"string": {"ValueArn": "v"}}}]},
        ]

    def test_of_update_contact_attributes(self):
        """Every member of UpdateContactAttributes can be written."""
        found = entry(attributes('string: "{C}"'), C="v")
        operation = get_operation("update_contact_attributes")
        assert judged(operation, found.params) == ""
        assert set(found.params) == set(operation.shape.members)

    @pytest.mark.parametrize(
        "operation", list(iter_operations()), ids=lambda operation: operation.name
    )
    def test_of_the_model(self, operation):
        """What the model knows today can be written today: the skeleton is sent whole."""
        text = skeleton(operation).replace("\n  # ", "\n  ")
        spec = parse(text)
        assert set(spec.requests[0].members) == set(operation.shape.members)


class TestCliSkeleton:
    """What `aws connect … --generate-cli-skeleton` prints, made by the code that the CLI uses."""

    @pytest.mark.parametrize("indent", [4, "\t", None])
    @pytest.mark.parametrize("pasted", ["below", "behind", "indented"])
    def test_of_update_contact(self, indent, pasted):
        """Pasted as it is printed, with ids and one member filled in, it sends that member."""
        request = ArgumentGenerator().generate_skeleton(
            get_operation("update_contact").shape._shape
        )
        request |= {"InstanceId": INSTANCE, "ContactId": "{id}"}
        request["References"]["KeyName"] |= {"Type": "URL", "Value": "https://e/{C}"}
        printed = json.dumps(request, indent=indent)
        text = (
            "update_contact:"
            + {
                "below": f"\n{printed}\n",
                "behind": f" {printed}\n",
                "indented": "\n" + "".join(f"  {line}\n" for line in printed.splitlines()),
            }[pasted]
        )
        found, skipped = entries(text, {"C": ["v", ""]})
        reference = found.params["References"].pop("KeyName")
        assert (
            reference.pop("Status")
            in get_operation("update_contact")
            .shape.members["References"]
            .value.members["Status"]
            .enum
        )
        assert reference == {"Type": "URL", "Value": "https://e/v"}
        assert found.params == {"InstanceId": INSTANCE, "ContactId": "c0", "References": {}}
        assert (skipped.outcome, skipped.error_code) == (Outcome.SKIPPED, "nothing_to_send")

    @pytest.mark.parametrize(
        "operation", list(iter_operations()), ids=lambda operation: operation.name
    )
    def test_untouched(self, operation):
        """With nothing but its ids filled in, it sends nothing."""
        request = ArgumentGenerator().generate_skeleton(operation.shape._shape)
        request |= {"InstanceId": INSTANCE, operation.contact_member: "{id}"}
        found = entry(json.dumps({operation.name: request}, indent="\t"), C="v")
        assert (found.outcome, found.error_code) == (Outcome.SKIPPED, "nothing_to_send")

    def test_ids_are_asked_for(self):
        """An id that was not filled in is refused at its line."""
        text = 'update_contact: {\n  "InstanceId": "",\n  "ContactId": ""\n}\n'
        assert refusal(text) == (
            "line 2: InstanceId is empty; write the id, or a column in braces."
        )

    def test_yaml_input_with_comments(self):
        """The CLI's `yaml-input` is accepted with its comments."""
        text = f"""\
update_contact:
  InstanceId: '{INSTANCE}'  # [REQUIRED] The identifier of the instance.
  ContactId: '{{id}}' # [REQUIRED] The identifier of the contact.
  Name: ''  # The name of the contact.
  Description: '{{C}}' # The description of the contact.
  References: # Well-formed data on contact.
    KeyName:
      Value: ''  # A valid value for the reference.
      Type: URL # [REQUIRED] The type of the reference. Valid values are: URL, ATTACHMENT.
      Status: AVAILABLE # Status. Valid values are: AVAILABLE, DELETED.
      Arn: ''
      StatusReason: ''
  UserInfo: # Information about the agent.
    UserId: ''
"""
        assert sent(text, C="v") == {"Description": "v"}

    def test_constants_that_were_filled_in_are_sent(self):
        """A reference of constants is no untouched skeleton, whatever is still empty in it."""
        line = 'References: {k: {Type: URL, Value: "https://e", Arn: "", StatusReason: ""}}'
        assert sent(contact(line), C="") == {
            "References": {"k": {"Type": "URL", "Value": "https://e"}}
        }


class TestStructures:
    def test_are_left_out_with_their_last_live_value(self):
        """A reference whose value is empty is left out whole, its type with it."""
        text = contact('References: {a: {Type: URL, Value: "{A}"}, b: {Type: URL, Value: "{B}"}}')
        b = {"Type": "URL", "Value": "y"}
        assert sent(text, A="", B="y") == {"References": {"b": b}}
        assert entry(text, A="", B="").error_code == "nothing_to_send"

    def test_that_still_hold_a_live_value_are_sent(self):
        """One live value keeps a structure."""
        text = contact('References: {a: {Type: URL, Value: "{A}", StatusReason: "{B}"}}')
        assert sent(text, A="", B="y") == {
            "References": {"a": {"Type": "URL", "StatusReason": "y"}}
        }

    def test_of_constants_are_sent(self):
        """A structure of constants has nothing to lose."""
        assert sent(contact("References: {a: {Type: URL, Value: x}}"), C="") == {
            "References": {"a": {"Type": "URL", "Value": "x"}}
        }

    def test_nested_ones_take_those_above_with_them(self):
        """A map of nothing, in a structure of nothing, is nothing."""
        text = contact(
            '"SegmentAttributes": {"connect:ContactExpiry": '
            '{ValueMap: {ExpiryDuration: {ValueInteger: "{D}"}}}}',
            'Name: "{N}"',
        )
        assert sent(text, D="", N="n") == {"Name": "n"}
        assert sent(text, D="7", N="") == {
            "SegmentAttributes": {
                "connect:ContactExpiry": {"ValueMap": {"ExpiryDuration": {"ValueInteger": 7}}}
            }
        }

    def test_an_erased_value_is_live(self):
        """What is to be erased is sent, and its reference with it."""
        text = contact("References: {a: {Type: URL, Value: {column: A, empty: erase}}}")
        assert sent(text, A="") == {"References": {"a": {"Type": "URL", "Value": ""}}}

    def test_a_required_member_that_is_empty_is_invalid(self):
        """Where the service needs a member and the row has none for it, the row is INVALID."""
        text = contact('References: {a: {Type: "{T}", Value: "{V}"}}')
        assert invalid(text, T="", V="x") == (
            "missing_member",
            'row 1: References.a.Type (from "T") is empty, and the service needs it.',
        )
        assert entry(text, T="", V="").error_code == "nothing_to_send"

    def test_lists_keep_what_is_there(self):
        """A value of a list that is empty is left out of it."""
        text = contact(
            'SegmentAttributes: {a: {ValueList: [{ValueString: "{A}"}, {ValueString: "{B}"}]}}'
        )
        assert sent(text, A="", B="y") == {
            "SegmentAttributes": {"a": {"ValueList": [{"ValueString": "y"}]}}
        }


def test_nothing_behind_a_name_is_nothing():
    """A member with nothing behind it is left out."""
    text = contact("Name: n", "References:", "UserInfo:", "SegmentAttributes: {a: {ValueList:}}")
    assert sent(text, C="") == {"Name": "n"}


@pytest.mark.parametrize("text", [contact(), attributes(), contact("References:", "UserInfo: {}")])
def test_a_request_that_writes_nothing_warns(text):
    """An operation without anything to write is a mapping, and a warning says so."""
    (warning,) = parse(text).warnings
    assert warning.startswith("mapping.yaml, line ")
    assert "names nothing to write, so every row will be skipped. It can write " in warning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            contact("name: x"),
            (
                'line 4: "name" is not a member of UpdateContact. Did you mean "Name"? '
                "Known: InstanceId, ContactId, Name, Description, References, "
            ),
        ),
        (contact("Attributes: {a: b}"), 'line 4: "Attributes" is not a member of UpdateContact. '),
        (
            contact("UserInfo: {userid: x}"),
            ('line 4: "userid" is not a member of UserInfo. Did you mean "UserId"? Known: UserId.'),
        ),
        (
            contact("References:\n  a:\n    Type: URL\n    Vlaue: x"),
            (
                'line 7: "Vlaue" is not a '
                'member of References.a. Did you mean "Value"? Known: Value, Type, Status, Arn, '
                "StatusReason."
            ),
        ),
        (
            contact("References:\n  a: {Value: x}"),
            ("line 5: References.a needs Type, which is not here."),
        ),
        (
            "update_contact: {Name: x}",
            ("line 1: UpdateContact needs InstanceId and ContactId, which are not here."),
        ),
        (
            "update_contact_attributes:\n  InstanceId: i\n  InitialContactId: c",
            ("line 2: UpdateContactAttributes needs Attributes, which is not here."),
        ),
        (
            contact("References: x"),
            ('line 4: References must be keys with values, and the text "x" stands here.'),
        ),
        (
            contact("References: [x]"),
            ("line 4: References must be keys with values, and a list stands here."),
        ),
        (contact("Name: [x]"), "line 4: Name is one value, and a list stands here."),
        (
            contact("SegmentAttributes: {a: {ValueList: x}}"),
            ('line 4: SegmentAttributes.a.ValueList is a list, and the text "x" stands here.'),
        ),
        (
            contact("SegmentAttributes:\n  a:\n    ValueList:\n    - {ValueIntger: 1}"),
            (
                "line 7: "
                '"ValueIntger" is not a member of SegmentAttributes.a.ValueList[0]. Did you mean '
                '"ValueInteger"? '
            ),
        ),
        (
            attributes("First Name: x"),
            (
                'line 5: "First Name" is not a legal key of Attributes: keys '
                "hold only the letters A to Z and a to z, digits, - and _, "
                "and are written out, not made "
                'from columns. Did you mean "First_Name"?'
            ),
        ),
        (attributes("ok: x", '"{C}": x'), 'line 6: "{C}" is not a legal key of Attributes: '),
        (attributes('"": x'), "line 5: Attributes has an empty key; name it."),
        (attributes('"a\\n": x'), 'line 5: "a\\n" is not a legal key of Attributes: '),
        (attributes("größe: x"), 'line 5: "größe" is not a legal key of Attributes: '),
        (attributes("connect:x: x"), 'line 5: "connect:x" is not a legal key of Attributes: '),
        (attributes(f"{'k' * 32768}: x"), "line 5: this is not YAML: "),
        (
            attributes(f"? {'k' * 32768}\n    : x"),
            ("line 5: this key of Attributes has 32,768 characters; at most 32,767 are allowed."),
        ),
        (
            contact('SegmentAttributes: {"a b": {ValueString: x}}'),
            (
                'line 4: "a b" is not a legal key '
                "of SegmentAttributes: keys hold only the letters A to Z "
                "and a to z, digits, - and _, "
                "after a prefix and a colon if it is the system's, and are"
            ),
        ),
        (
            contact("SegmentAttributes: {%s: {ValueString: x}}" % ("k" * 129)),
            ("line 4: this key of SegmentAttributes has 129 characters; at most 128 are allowed."),
        ),
        (
            contact('References: {"{C}": {Type: URL}}'),
            (
                'line 4: "{C}" is not a legal key of '
                "References: keys are written out, not made from columns."
            ),
        ),
        (
            contact("SegmentAttributes: {a: {ValueInteger: soon}}"),
            (
                "line 4: "
                "SegmentAttributes.a.ValueInteger is a whole number between -2,147,483,648 and "
                '2,147,483,647, and "soon" is none.'
            ),
        ),
        (
            contact("SegmentAttributes: {a: {ValueInteger: 2147483648}}"),
            ("line 4: SegmentAttributes.a.ValueInteger is a whole number between "),
        ),
        (
            contact("SegmentAttributes:\n  a: {ValueInteger: {column: C,\n       default: soon}}"),
            "line 6: SegmentAttributes.a.ValueInteger is a whole number between ",
        ),
        (
            contact("Name: " + "n" * 1025),
            ("line 4: Name has 1,025 characters; at most 1,024 are allowed."),
        ),
        (
            contact("References: {a: {Type: URL, Arn: arn}}"),
            ("line 4: References.a.Arn has 3 characters; at least 20 are needed."),
        ),
        (
            contact("References: {a: {Type: URL, Arn: _rn:aws:connect:eu-west-2}}"),
            (
                "line 4: "
                "References.a.Arn must match ^[-:/A-Za-z0-9]+, and "
                '"_rn:aws:connect:eu-west-2" does not.'
            ),
        ),
        (attributes("a: x", contact="''"), "line 3: InitialContactId is empty; write the id"),
        (
            attributes("a: x", contact="c" * 257),
            ("line 3: InitialContactId has 257 characters; at most 256 are allowed."),
        ),
        (
            attributes('"*": x'),
            'line 5: "*" must be keys with values, and the text "x" stands here.',
        ),
        (
            attributes('"*":', "  prefx: x"),
            ('line 6: "prefx" is not a key of "*". Did you mean "prefix"? Known: prefix, except.'),
        ),
        (
            attributes('"*":', "  prefix: crm."),
            (
                'line 6: the prefix "crm." is not legal in an '
                "attribute key, which holds only the letters A to Z and a to z, digits, - and _."
            ),
        ),
        (
            contact('References: {"*": {Type: URL, prefix: x}}'),
            ('line 4: "prefix" is not a member of References.*. '),
        ),
    ],
)
def test_what_is_no_request_is_refused(text, message):
    """A request that the model does not know is refused: line, found, allowed, nearest."""
    assert refusal(text).startswith(message)


def test_unknown_enum_values_warn_and_pass():
    """An enum's value that this botocore does not know is sent, and a warning says so."""
    text = contact("References: {a: {Type: URLX, Value: x}}")
    (warning,) = parse(text).warnings
    assert warning.startswith(
        'mapping.yaml, line 4: References.a.Type is "URLX", which this version of botocore does '
        'not know. Did you mean "URL"? Known: URL, ATTACHMENT, '
    )
    assert warning.endswith(" It is sent as it stands.")
    assert sent(text, C="") == {"References": {"a": {"Type": "URLX", "Value": "x"}}}


def test_enum_values_from_a_column_pass():
    """An enum's value may come from a column."""
    text = contact('References: {a: {Type: "{T}", Value: x}}')
    assert sent(text, T="NEW") == {"References": {"a": {"Type": "NEW", "Value": "x"}}}
    assert parse(text).warnings == ()


def test_both_operations_in_one_mapping():
    """A mapping of both operations makes two entries of each row, in the mapping's order."""
    text = contact('Name: "{C}"') + attributes("a: {column: C, empty: reject}")
    first, second, third, fourth = entries(text, {"C": ["v", ""]})
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert (first.operation, second.operation) == ("update_contact", "update_contact_attributes")
    assert [first.row, second.row, third.row, fourth.row] == [1, 1, 2, 2]
    assert (third.outcome, fourth.outcome) == (Outcome.SKIPPED, Outcome.INVALID)
