"""Plain http: to this machine as it is, beyond it only where somebody said so."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bulk_updater.config import ConnectionConfig, is_plain_http
from bulk_updater.connect import open_connect, read_quotas
from bulk_updater.connect.opening import check_endpoint_url
from bulk_updater.errors import ConfigError
from bulk_updater.operations import iter_operations
from tests.stub_service import answer, stub_service

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = ConnectionConfig(region="eu-west-2", access_key=("key", "secret"))
OPERATIONS = tuple(iter_operations())
REFUSED = "plain http beyond this machine"


@pytest.fixture
def beyond(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name but this machine's is found at this machine; those that were asked for."""
    asked = []
    resolve = socket.getaddrinfo

    def resolve_here(host, *args, **options):
        name = host.decode() if isinstance(host, bytes) else host
        if name and name.endswith(".invalid"):
            asked.append(name)
            host = "127.0.0.1"
        return resolve(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    return asked


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://127.0.0.1:8080", False),
        ("http://127.9.9.9", False),
        ("http://[::1]:8080", False),
        ("http://localhost", False),
        ("https://connect.invalid", False),
        (None, False),
        ("http://connect.invalid", True),
        ("HTTP://connect.invalid", True),
        ("http://10.0.0.7:8080", True),
        ("http://127.0.0.1.connect.invalid", True),
        ("http://localhost.connect.invalid", True),
        ("http://0.0.0.0:8080", True),
        ("http://127.0.0.1@connect.invalid", True),
    ],
)
def test_what_leaves_this_machine_in_the_clear(url: str | None, plain: bool):
    """Names that only look like this machine's, and every other address, are beyond it."""
    assert is_plain_http(url) is plain


@pytest.mark.parametrize(
    "url", ["http://me:hunter2@connect.invalid", "https://me@connect.invalid", "ftp://me:hunter2@x"]
)
def test_no_password_is_repeated(url: str):
    """A URL with a user or a password is refused whatever else it is, without either."""
    with pytest.raises(ConfigError) as caught:
        check_endpoint_url(url, allow_http=True)
    assert "hunter2" not in caught.value.message
    assert "me@" not in caught.value.message


@pytest.mark.parametrize("named_by", ["config", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_CONNECT"])
async def test_connect_itself(monkeypatch: pytest.MonkeyPatch, beyond: list[str], named_by: str):
    """Opening is refused, and not even a name is looked up; with allow_http it opens."""
    config = CONFIG
    if named_by == "config":
        config = replace(config, endpoint_url="http://connect.invalid")
    else:
        monkeypatch.setenv(named_by, "http://connect.invalid")
    with pytest.raises(ConfigError, match=REFUSED):
        async with open_connect(config, max_in_flight=1):
            pytest.fail("it opened")
    async with open_connect(replace(config, allow_http=True), max_in_flight=1) as connect:
        assert connect.endpoint_url == "http://connect.invalid"
    assert beyond == []


async def test_the_service_that_lends_a_role(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, beyond: list[str]
):
    """botocore's own question for a role, signed with the long-term key, is held back as well."""
    (tmp_path / "config").write_text(
        "[profile crm]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = base\n"
        "[profile base]\naws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    config = ConnectionConfig(region="eu-west-2", profile="crm")
    async with stub_service(answer(403, b"")) as stub:
        port = stub.url.rpartition(":")[2]
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://sts.invalid:{port}")
        with pytest.raises(ConfigError, match=REFUSED):
            async with open_connect(config, max_in_flight=1):
                pytest.fail("it opened")
        assert (stub.hits, beyond) == (0, [])
        with pytest.raises(ConfigError, match="could not be loaded"):
            async with open_connect(replace(config, allow_http=True), max_in_flight=1):
                pytest.fail("it opened")
        assert stub.hits == 1


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_SERVICE_QUOTAS", "AWS_ENDPOINT_URL_STS"])
async def test_the_question_for_the_quotas(
    monkeypatch: pytest.MonkeyPatch, beyond: list[str], variable: str
):
    """Service Quotas and STS are not asked in the clear, which is a reason and no error."""
    body = b'{"Quota": {"Value": 10.0}}'
    async with stub_service(answer(200, body)) as here:
        port = here.url.rpartition(":")[2]
        monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", here.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", here.url)
        monkeypatch.setenv(variable, f"http://other.invalid:{port}")
        found = await read_quotas(CONFIG, OPERATIONS)
        n_refused = len(beyond)
        open_found = await read_quotas(replace(CONFIG, allow_http=True), OPERATIONS)
    assert n_refused == 0
    if "QUOTAS" in variable:
        assert REFUSED in str(found.unread)
        assert here.hits >= 2  # only those that were allowed
        assert open_found.unread is None
    else:
        assert found.account_id is None


async def test_an_endpoint_in_the_clear_is_a_reason_not_to_ask():
    """`plan` says why it did not ask, in one clause."""
    config = replace(CONFIG, endpoint_url="http://connect.invalid")
    found = await read_quotas(config, OPERATIONS)
    assert found.unread is not None
    assert REFUSED in found.unread
    assert ";" not in found.unread
    assert not found.unread.endswith(".")
