"""Certificates: a request goes to nobody who cannot show that they are who was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bulk_updater.config import ConnectionConfig
from bulk_updater.connect import open_connect
from bulk_updater.errors import BulkUpdaterError, SendError
from bulk_updater.model import Request
from tests.stub_service import answer
from tests.tls import ELSEWHERE, HERE, proxy_to, tls_service

if TYPE_CHECKING:
    from pathlib import Path

INSTANCE = "12345678-90ab-cdef-1234-567890abcdef"
PARAMS = {"InstanceId": INSTANCE, "InitialContactId": "c-1", "Attributes": {"a": "1"}}
REQUEST = Request(
    row=1,
    source="export.csv",
    operation="update_contact_attributes",
    instance_id=INSTANCE,
    contact_id="c-1",
    params=PARAMS,
    payload_bytes=2,
)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def send(url: str | None, **settings) -> str:
    """One request; its id, or the code that it failed with."""
    config = ConnectionConfig(
        region="eu-west-1",
        endpoint_url=url,
        access_key=settings.pop("access_key", ("key", "secret")),
        connect_timeout_s=5,
        read_timeout_s=5,
        **settings,
    )
    async with open_connect(config, max_in_flight=1) as connect:
        try:
            return (await connect.send(REQUEST)).request_id
        except SendError as error:
            return error.code


def trusted(folder: Path) -> str:
    return str(folder / "server.pem")


OK = answer()
SENT = "00000000-feed-4bad-8bed-000000000001"


async def test_a_trusted_certificate_for_the_name_is_taken(tmp_path):
    """It is signed by who `--ca-bundle` names, and for the endpoint's own address."""
    async with tls_service(tmp_path, HERE, OK) as port:
        assert await send(f"https://127.0.0.1:{port}", ca_bundle=trusted(tmp_path)) == SENT


@pytest.mark.parametrize("certificate", [ELSEWHERE, HERE], ids=["another name", "nobody's"])
async def test_a_certificate_that_shows_nothing_is_refused(tmp_path, certificate):
    """A trusted one for another name, and one for the right name that nobody trusts."""
    ca_bundle = trusted(tmp_path) if certificate is ELSEWHERE else None
    async with tls_service(tmp_path, certificate, OK) as port:
        assert await send(f"https://127.0.0.1:{port}", ca_bundle=ca_bundle) == "SSLError"


async def test_no_verify_ssl_takes_any_certificate(tmp_path):
    """That is what it is for."""
    async with tls_service(tmp_path, ELSEWHERE, OK) as port:
        assert await send(f"https://127.0.0.1:{port}", verify_ssl=False) == SENT


@pytest.mark.parametrize(
    ("certificate", "is_trusted", "told"),
    [(HERE, True, SENT), (HERE, False, "SSLError"), (ELSEWHERE, True, "SSLError")],
    ids=["good", "nobody's", "another name"],
)
async def test_behind_a_proxy_certificates_are_verified_alike(
    tmp_path, monkeypatch, certificate, is_trusted, told
):
    """Connect's own name through `HTTPS_PROXY`: only its own certificate will do."""
    ca_bundle = trusted(tmp_path) if is_trusted else None
    async with tls_service(tmp_path, certificate, OK) as port, proxy_to(port) as (proxy, asked):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        assert await send(None, ca_bundle=ca_bundle) == told
    assert asked == ["connect.eu-west-1.amazonaws.com:443"]


async def test_who_lends_credentials_has_to_show_it_too(tmp_path, monkeypatch):
    """A web identity's token goes to no STS whose certificate is for another name."""
    (tmp_path / "token").write_text("token")
    async with tls_service(tmp_path, ELSEWHERE, OK) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"https://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/night")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_CA_BUNDLE", trusted(tmp_path))
        with pytest.raises(BulkUpdaterError, match="certificate"):
            await send("http://127.0.0.1:9", access_key=None)
