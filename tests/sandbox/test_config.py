"""What a sandbox can be told, and what not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

import bulk_updater.sandbox
from bulk_updater.sandbox import SandboxConfig


def test_the_public_names_are_two():
    """The room offers `Sandbox` and `SandboxConfig`."""
    assert bulk_updater.sandbox.__all__ == ["Sandbox", "SandboxConfig"]


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("port", -1, "at least 0 and at most 65535"),
        ("port", 65_536, "at least 0 and at most 65535"),
        ("rate_per_s", 0, "above 0"),
        ("rate_per_s", float("inf"), "above 0"),
        ("rate_per_s", float("nan"), "above 0"),
        ("burst", 0.5, "at least 1"),
        ("live_per_s", -1, "at least 0"),
        ("latency_ms", -1, "at least 0"),
        ("latency_jitter", 1.1, "at least 0 and at most 1"),
        ("log_size", -1, "at least 0"),
        ("applied_quota_per_s", -1, "at least 0"),
        ("error_share", 1.5, "at least 0 and at most 1"),
        ("html_share", -0.1, "at least 0 and at most 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_range(member, value, message):
    """A value that makes no sense is refused by name, with what is allowed."""
    with pytest.raises(ValueError, match=f"{member} is .*; it must be a number {message}"):
        SandboxConfig(**{member: value})


def test_shares_are_at_most_everything():
    """Faults cannot take more than all requests."""
    SandboxConfig(error_share=0.3, html_share=0.7)
    with pytest.raises(ValueError, match=r"the sum of all shares is 1\.1"):
        SandboxConfig(error_share=0.6, html_share=0.5)


@pytest.mark.parametrize("member", ["access_key", "secret_key"])
def test_empty_credentials_are_refused(member):
    """An empty key would let everybody in."""
    with pytest.raises(ValueError, match="must not be empty"):
        SandboxConfig(**{member: ""})


def test_there_is_no_host_to_set():
    """Where it listens is not for configuration."""
    names = {field.name for field in dataclasses.fields(SandboxConfig)}
    assert not {"host", "address", "bind"} & names
    with pytest.raises(dataclasses.FrozenInstanceError):
        SandboxConfig().port = 1


def test_it_loads_no_aws_sdk():
    """The judge of the client shares no code with it."""
    code = (
        "import sys, bulk_updater.sandbox;"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " ('boto3', 'botocore', 'aiobotocore', 'aioboto3')"
        " or m.startswith('bulk_updater.') and not m.startswith('bulk_updater.sandbox')"
        " and m != 'bulk_updater._version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
