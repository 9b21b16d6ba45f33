"""What the SDK sees of each operation when all goes well."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from bulk_updater.sandbox import Sandbox, SandboxConfig

from .helpers import INSTANCE, get_json, sdk

if TYPE_CHECKING:
    from pathlib import Path


async def test_attributes_come_back_as_they_were_sent(connect):
    """What UpdateContactAttributes stored, GetContactAttributes gives back, to the letter."""
    attributes = {"crm_id": "0044123", "Full-Name": "Zoë 🦉", "empty": " ", "n": "\u0000\n"}
    await connect.update_contact_attributes(
        InstanceId=INSTANCE, InitialContactId="c-1", Attributes=attributes
    )
    answer = await connect.get_contact_attributes(InstanceId=INSTANCE, InitialContactId="c-1")
    assert answer["Attributes"] == attributes


async def test_a_write_leaves_other_attributes_alone_and_an_empty_value_erases(connect):
    """Keys that a request does not name stay; one that it sets to "" is gone, and case matters."""
    for attributes in ({"a": "1", "A": "2", "b": "3"}, {"b": "4", "a": ""}, {}):
        await connect.update_contact_attributes(
            InstanceId=INSTANCE, InitialContactId="c", Attributes=attributes
        )
    answer = await connect.get_contact_attributes(InstanceId=INSTANCE, InitialContactId="c")
    assert answer["Attributes"] == {"A": "2", "b": "4"}


async def test_contacts_of_two_instances_are_two_contacts(connect):
    """The same contact id in another instance has attributes of its own."""
    for instance in ("one", "two"):
        await connect.update_contact_attributes(
            InstanceId=instance, InitialContactId="c", Attributes={"at": instance}
        )
    for instance in ("one", "two"):
        answer = await connect.get_contact_attributes(InstanceId=instance, InitialContactId="c")
        assert answer["Attributes"] == {"at": instance}


async def test_describe_contact_shows_what_both_operations_wrote(config):
    """DescribeContact parses into the SDK's own types: ids, texts, maps, times."""
    at = datetime.now(UTC).replace(microsecond=0)
    expiry = {"ValueMap": {"ExpiryDuration": {"ValueInteger": 135}}}
    async with Sandbox(config, now=lambda: at) as sandbox, sdk(sandbox) as connect:
        await connect.update_contact_attributes(
            InstanceId=INSTANCE, InitialContactId="c", Attributes={"tier": "gold"}
        )
        await connect.update_contact(
            InstanceId=INSTANCE,
            ContactId="c",
            Name="Renewal",
            Description="",
            SegmentAttributes={"connect:ContactExpiry": expiry},
        )
        await connect.update_contact(
            InstanceId=INSTANCE,
            ContactId="c",
            Description="2027",
            SegmentAttributes={"own-one": {"ValueString": "x"}},
        )
        answer = await connect.describe_contact(InstanceId=INSTANCE, ContactId="c")
    contact = answer["Contact"]
    assert contact["Id"] == contact["InitialContactId"] == "c"
    assert contact["Arn"] == (
        f"arn:aws:connect:eu-west-2:123456789012:instance/{INSTANCE}/contact/c"
    )
    assert (contact["Name"], contact["Description"]) == ("Renewal", "2027")
    assert contact["Attributes"] == {"tier": "gold"}
    assert contact["SegmentAttributes"] == {
        "connect:ContactExpiry": expiry,
        "own-one": {"ValueString": "x"},
    }
    assert contact["LastUpdateTimestamp"] == at


async def test_references_merge_by_key(sandbox, connect):
    """A reference that a request does not name stays, one that it names is replaced whole."""
    url = {"Type": "URL", "Value": "https://crm.example/1"}
    number = {"Type": "NUMBER", "Value": "7"}
    await connect.update_contact(
        InstanceId=INSTANCE, ContactId="c", References={"crm": url, "n": {"Type": "STRING"}}
    )
    await connect.update_contact(InstanceId=INSTANCE, ContactId="c", References={"n": number})
    contact = sandbox.state.contact(INSTANCE, "c")
    assert contact.references == {"crm": url, "n": number}
    assert contact.references_bytes == len("crm" + "https://crm.example/1" + "n" + "7")


async def test_members_of_some_channels_are_kept(sandbox, connect):
    """Queue, user and endpoints, which only external audio contacts know, arrive as they are."""
    endpoint = {"Type": "TELEPHONE_NUMBER", "Address": "+4420"}
    await connect.update_contact(
        InstanceId=INSTANCE,
        ContactId="c",
        QueueInfo={"Id": "q"},
        UserInfo={"UserId": "u"},
        CustomerEndpoint=endpoint,
    )
    answer = await connect.describe_contact(InstanceId=INSTANCE, ContactId="c")
    assert answer["Contact"]["CustomerEndpoint"] == endpoint
    assert sandbox.state.contact(INSTANCE, "c").other == {
        "QueueInfo": {"Id": "q"},
        "UserInfo": {"UserId": "u"},
        "CustomerEndpoint": endpoint,
    }


@pytest.mark.parametrize(
    "contact_id", ["a/b", "a b", "a:b", "é", "a%2Fb", "?#&=+", "a//b", "~-._", "🦉", "attributes"]
)
async def test_any_id_finds_its_contact(sandbox, connect, contact_id):
    """An id with slashes, spaces, colons or accents names one contact in all four operations."""
    await connect.update_contact_attributes(
        InstanceId="i/1", InitialContactId=contact_id, Attributes={"a": "1"}
    )
    await connect.update_contact(InstanceId="i/1", ContactId=contact_id, Name="n")
    attributes = await connect.get_contact_attributes(InstanceId="i/1", InitialContactId=contact_id)
    described = await connect.describe_contact(InstanceId="i/1", ContactId=contact_id)
    assert attributes["Attributes"] == described["Contact"]["Attributes"] == {"a": "1"}
    assert described["Contact"]["Name"] == "n"
    assert list(sandbox.state.instances["i/1"]) == [contact_id]


async def test_every_contact_exists_unless_it_is_called_missing(sandbox, connect):
    """A contact nobody wrote to is empty; one whose id begins with `missing` is not found."""
    answer = await connect.get_contact_attributes(InstanceId=INSTANCE, InitialContactId="new")
    assert answer["Attributes"] == {}
    calls = (
        ("update_contact_attributes", {"InitialContactId": "missing-1", "Attributes": {"a": "1"}}),
        ("update_contact", {"ContactId": "missing", "Name": "n"}),
        ("get_contact_attributes", {"InitialContactId": "missing2"}),
        ("describe_contact", {"ContactId": "missing2"}),
    )
    for operation, members in calls:
        with pytest.raises(connect.exceptions.ResourceNotFoundException) as caught:
            await getattr(connect, operation)(InstanceId=INSTANCE, **members)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
        assert caught.value.response["Error"] == {
            "Code": "ResourceNotFoundException",
            "Message": "The specified contact was not found.",
        }
    assert sandbox.state.instances == {}


async def test_a_file_says_which_contacts_exist(tmp_path: Path):
    """With a file, only its contacts exist: in every instance, or in the one that it names."""
    path = tmp_path / "contacts.csv"
    path.write_bytes(b"\xef\xbb\xbfanywhere\r\n\r\none, there \nmissing-anyway\n")
    config = SandboxConfig(latency_ms=0, contacts=path)
    async with Sandbox(config) as sandbox, sdk(sandbox) as connect:
        found = []
        for instance in ("one", "two"):
            for contact in ("anywhere", "there", "missing-anyway", "else"):
                try:
                    await connect.describe_contact(InstanceId=instance, ContactId=contact)
                except connect.exceptions.ResourceNotFoundException:
                    continue
                found.append((instance, contact))
    assert found == [("one", "anywhere"), ("one", "there"), ("two", "anywhere")]


@pytest.mark.parametrize("line", ["a,b,c", "one,", ",contact", ","])
async def test_a_bad_file_of_contacts_is_refused_with_its_line(tmp_path: Path, line: str):
    """A file that holds anything but ids keeps the sandbox from opening, and says where."""
    path = tmp_path / "contacts.csv"
    path.write_text(f"fine\n{line}\n")
    with pytest.raises(ValueError, match=r"contacts\.csv, line 2: expected"):
        async with Sandbox(SandboxConfig(contacts=path)):
            pass


async def test_service_quotas_tell_the_rate(config):
    """GetServiceQuota gives each operation's quota as Service Quotas does."""
    quotas = {
        "L-F001E5ED": "Rate of UpdateContactAttributes API requests",
        "L-40C15531": "Rate of UpdateContact API requests",
        "L-5AF7EB96": "Rate of GetContactAttributes API requests",
        "L-371095B8": "Rate of DescribeContact API requests",
    }
    async with Sandbox(config) as sandbox, sdk(sandbox, "service-quotas") as client:
        for code, name in quotas.items():
            answer = await client.get_service_quota(ServiceCode="connect", QuotaCode=code)
            assert answer["Quota"] == {
                "ServiceCode": "connect",
                "ServiceName": "Amazon Connect",
                "QuotaArn": f"arn:aws:servicequotas:eu-west-2:123456789012:connect/{code}",
                "QuotaCode": code,
                "QuotaName": name,
                "Value": 1e6,
                "Unit": "None",
                "Adjustable": True,
                "GlobalQuota": False,
                "QuotaAppliedAtLevel": "ACCOUNT",
            }
    assert sandbox.counters["get_service_quota"].accepted == 4


async def test_service_quotas_may_tell_another_rate_than_the_bucket_has():
    """`applied_quota_per_s` is what is told; the bucket stays at `rate_per_s`."""
    config = SandboxConfig(latency_ms=0, rate_per_s=2, applied_quota_per_s=50)
    async with Sandbox(config) as sandbox, sdk(sandbox, "service-quotas") as client:
        answer = await client.get_service_quota(ServiceCode="connect", QuotaCode="L-F001E5ED")
    assert answer["Quota"]["Value"] == 50.0


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"ServiceCode": "connect", "QuotaCode": "L-00000000"}, "NoSuchResourceException"),
        ({"ServiceCode": "lambda", "QuotaCode": "L-F001E5ED"}, "NoSuchResourceException"),
        ({"ServiceCode": "connect"}, "IllegalArgumentException"),
        ({"ServiceCode": 1, "QuotaCode": []}, "IllegalArgumentException"),
    ],
)
async def test_service_quotas_refuse_what_they_do_not_know(sandbox, members, code):
    """An unknown quota is NoSuchResourceException, a bad request IllegalArgument; both 400."""
    async with sdk(sandbox, "service-quotas") as client:
        with pytest.raises(client.exceptions.from_code(code)) as caught:
            await client.get_service_quota(**members)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert caught.value.response["Error"]["Message"]


async def test_service_quotas_may_be_denied(config):
    """With `quotas_denied` reading a quota is AccessDenied, 400, and the permission is named."""
    async with (
        Sandbox(replace(config, quotas_denied=True)) as sandbox,
        sdk(sandbox, "service-quotas") as client,
    ):
        with pytest.raises(client.exceptions.AccessDeniedException) as caught:
            await client.get_service_quota(ServiceCode="connect", QuotaCode="L-F001E5ED")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert "servicequotas:GetServiceQuota" in caught.value.response["Error"]["Message"]
    assert sandbox.counters["get_service_quota"].rejected == {"AccessDeniedException": 1}


async def test_sts_tells_who_asks(config):
    """GetCallerIdentity gives the sandbox's one account, and pays no token for it."""
    config = replace(config, rate_per_s=0.001, burst=1, quotas_denied=True, error_share=1.0)
    async with Sandbox(config) as sandbox, sdk(sandbox, "sts") as client:
        for _ in range(3):
            answer = await client.get_caller_identity()
    metadata = answer.pop("ResponseMetadata")
    assert answer == {
        "Account": "123456789012",
        "Arn": "arn:aws:iam::123456789012:user/sandbox",
        "UserId": "AIDASANDBOX",
    }
    assert metadata["RequestId"] == metadata["HTTPHeaders"]["x-amzn-requestid"]
    received = {name: counters.received for name, counters in sandbox.counters.items()}
    assert received == dict.fromkeys(received, 0) | {"get_caller_identity": 3}


async def test_an_operation_that_is_not_there_is_refused(sandbox, connect):
    """Other operations of Connect get UnknownOperationException, 404, and are counted apart."""
    with pytest.raises(ClientError) as caught:
        await connect.list_instances()
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert sandbox.counters["unknown"].rejected == {"UnknownOperationException": 1}


async def test_the_log_holds_applied_writes_in_their_order(config):
    """Every applied write is in the log once, in order; what was refused or read is not."""
    async with Sandbox(config) as sandbox, sdk(sandbox) as connect:
        answers = [
            await connect.update_contact_attributes(
                InstanceId="i", InitialContactId="c1", Attributes={"a": "1"}
            ),
            await connect.update_contact(InstanceId="i", ContactId="c2", Name="n"),
        ]
        await connect.describe_contact(InstanceId="i", ContactId="c2")
        with pytest.raises(connect.exceptions.ResourceNotFoundException):
            await connect.update_contact(InstanceId="i", ContactId="missing", Name="n")
        log = await get_json(sandbox, "/_sandbox/log")
    assert [(write["seq"], write["operation"], write["contact_id"]) for write in log] == [
        (1, "update_contact_attributes", "c1"),
        (2, "update_contact", "c2"),
    ]
    assert [write["request_id"] for write in log] == [
        answer["ResponseMetadata"]["RequestId"] for answer in answers
    ]
    assert [write.to_json() for write in sandbox.state.log] == log


async def test_the_log_forgets_the_oldest():
    """The log holds `log_size` writes; numbers go on."""
    config = SandboxConfig(latency_ms=0, log_size=2)
    async with Sandbox(config) as sandbox, sdk(sandbox) as connect:
        for n in range(5):
            await connect.update_contact(InstanceId="i", ContactId=f"c{n}", Name="n")
    assert [(write.seq, write.contact_id) for write in sandbox.state.log] == [(4, "c3"), (5, "c4")]


async def test_state_and_counters_are_shown_without_a_signature(sandbox, connect):
    """Whoever asks the sandbox's own paths sees contacts and numbers, and pays no token for it."""
    await connect.update_contact_attributes(
        InstanceId="i", InitialContactId="c", Attributes={"a": "1"}
    )
    state = await get_json(sandbox, "/_sandbox/state")
    counters = await get_json(sandbox, "/_sandbox/counters")
    assert state["i"]["c"]["attributes"] == {"a": "1"}
    assert state["i"]["c"]["attributes_bytes"] == 2
    assert counters["update_contact_attributes"] == {
        "received": 1,
        "accepted": 1,
        "throttled": 0,
        "rejected": {},
        "faults": {},
        "live_accepted": 0,
        "live_refused": 0,
        "in_flight": 0,
        "peak_in_flight": 1,
    }
    assert sum(each["received"] for each in counters.values()) == 1
