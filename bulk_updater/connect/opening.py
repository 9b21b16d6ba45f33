"""From settings to a session with credentials; what cannot work is a `ConfigError` here."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import socket
import ssl
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import aioboto3
import aiobotocore
import aiohttp
import botocore
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from bulk_updater._version import __version__
from bulk_updater.config import is_loopback, is_plain_http
from bulk_updater.connect.credentials import Signing
from bulk_updater.connect.judging import make_error
from bulk_updater.connect.meanings import FOREIGN
from bulk_updater.errors import (
    ConfigError,
    SendError,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AsyncExitStack

    from bulk_updater.config import ConnectionConfig

__all__ = [
    "StraightSession",
    "check_endpoint_url",
    "client_config",
    "enter_client",
    "load_credentials",
    "off_loop",
    "one_line",
    "open_session",
]

_T = TypeVar("_T")

_MAX_BODY_BYTES = 1 << 20
"""The longest body that is read. Connect's have less than a KiB, Service Quotas' a few."""
_PIECE_BYTES = 1 << 16

# Given whole: botocore puts its own together anew for every request, twice, which takes a fifth
# of the time that a request takes on this side.
_USER_AGENT = (
    f"bulk_updater/{__version__} aiobotocore/{aiobotocore.__version__} "
    f"Botocore/{botocore.__version__} Python/{platform.python_version()}"
)


# What stands before the last @ of a host: a user, a password, or both.
_USER_INFO = re.compile(r"//[^/\s]*@")


async def off_loop(work: Coroutine[Any, Any, _T]) -> _T:
    """Runs what aiobotocore calls a coroutine, but what reads files, in a thread.

    Nothing that it leaves behind is tied to the thread's loop: connections are opened at the first
    request, and a lock that nobody waits for knows no loop.
    """
    return await asyncio.to_thread(asyncio.run, work)


class _StraightConfig(AioConfig):  # type: ignore[misc]
    """A default that its session outlives: aiobotocore 2.25.1 forgets that where it merges two."""

    def merge(self, other_config: Any) -> AioConfig:
        merged: AioConfig = super().merge(other_config)
        merged.http_session_cls = self.http_session_cls
        return merged


def open_session(config: ConnectionConfig) -> aioboto3.Session:
    """Settles region, profile and trust; reads files, so it runs in a thread."""
    # botocore looks at AWS_DEFAULT_REGION only; the AWS CLI looks at AWS_REGION first.
    session = AioSession(
        session_vars={"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}
    )
    # Also for those clients that botocore makes itself, to borrow credentials.
    session.set_default_client_config(_StraightConfig(http_session_cls=StraightSession))
    key, secret = config.access_key or (None, None)
    opened = aioboto3.Session(
        botocore_session=session,
        profile_name=config.profile,
        region_name=config.region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )
    if opened.region_name is None:
        raise ConfigError(
            "There is no AWS region; name one with --region, AWS_REGION, AWS_DEFAULT_REGION or"
            " `region` in the profile."
        )
    if not config.allow_http:
        session.register("before-send", refuse_plain_http)
    if config.verify_ssl:
        # The order in which botocore asks.
        _check_ca_bundle(
            config.ca_bundle
            or session.get_config_variable("ca_bundle")
            or os.environ.get("REQUESTS_CA_BUNDLE")
        )
    return opened


def client_config(config: ConnectionConfig, max_in_flight: int) -> AioConfig:
    """What botocore is told; it retries nothing, follows nothing, and opens so many connections."""
    return AioConfig(
        http_session_cls=StraightSession,
        retries={"mode": "standard", "total_max_attempts": 1},  # `retry` retries, and pays for it
        max_pool_connections=max_in_flight,
        connect_timeout=config.connect_timeout_s or None,  # 0 means no limit, as for the AWS CLI
        read_timeout=config.read_timeout_s or None,
        tcp_keepalive=True,
        user_agent=_USER_AGENT,
        # The environment's proxies are for the way out; None asks for them.
        proxies={} if is_loopback(config.endpoint_url) else None,
        signature_version=None if config.sign_requests else UNSIGNED,
    )


async def enter_client(
    stack: AsyncExitStack,
    session: aioboto3.Session,
    service: str,
    config: ConnectionConfig,
    max_in_flight: int,
) -> Any:
    """Opens a client of a service, in a thread; the stack closes it.

    Args:
        stack: What closes the client.
        session: Whose region, profile and credentials it takes.
        service: botocore's name of the service, such as `connect`.
        config: How the service is reached. No `endpoint_url` leaves it to the environment, the
            profile and the region, in this order.
        max_in_flight: Connections that may be open at once, from 1.

    Returns:
        The client, which retries nothing and follows no redirect.

    Raises:
        ConfigError: If the client would follow redirects, or its endpoint is plain http beyond
            this machine.
        BotoCoreError: If settings or credentials cannot be used.
        OSError: If a file cannot be read.
        ValueError: If the endpoint's URL is malformed.
    """
    client = await off_loop(
        stack.enter_async_context(
            session.client(
                service,
                endpoint_url=config.endpoint_url,
                verify=config.ca_bundle if config.verify_ssl else False,
                config=client_config(config, max_in_flight),
            )
        )
    )
    # aiobotocore loses the class when it merges settings; then redirects would be followed.
    if not isinstance(client._endpoint.http_session, StraightSession):  # noqa: SLF001
        raise ConfigError("This version of aiobotocore would follow redirects; use 2.25.1.")
    check_endpoint_url(client.meta.endpoint_url, allow_http=config.allow_http)
    return client


def check_endpoint_url(url: str, *, allow_http: bool) -> None:
    """Looks at the URL that a service is to be reached at.

    Args:
        url: The URL, wherever it was named.
        allow_http: Whether it may be plain http although it is not this machine.

    Raises:
        ConfigError: If no request can go there, or none should.
    """
    shown = _without_password(url)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        usable = False
    if not usable or any(character.isspace() for character in url):
        raise ConfigError(
            f"--endpoint-url is {shown!r}; it must be a whole URL, such as http://127.0.0.1:8080."
        )
    if parts.username is not None or parts.password is not None:
        # It would stand in the command that goes on, and a signed request has no room for it.
        raise ConfigError(
            f"The URL of the endpoint {shown} holds a user name or a password, which is not"
            " supported; leave both out."
        )
    if is_plain_http(url) and not allow_http:
        raise ConfigError(
            f"The endpoint {shown} is plain http beyond this machine, so contacts' data and"
            " signatures would cross the network in the clear; name it with https, or give"
            " --allow-http if that network may see them."
        )


def _without_password(text: str) -> str:
    """A text whose URLs have neither user nor password any more."""
    return _USER_INFO.sub("//", text)


def refuse_plain_http(request: Any, **_: Any) -> None:
    """Stops what would leave this machine as plain http (event `before-send`).

    The last look, at every request of every client of a session, those included that botocore
    opens by itself to have credentials lent: wherever their endpoint was named.

    Raises:
        ConfigError: If it would.
    """
    check_endpoint_url(request.url.partition("?")[0], allow_http=False)


def _check_ca_bundle(path: str | None) -> None:
    """Raises `ConfigError` unless the file can be trusted; None trusts the default one."""
    if path is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:  # `ssl.SSLError` is one
        fault = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(
            f"The CA bundle {path} cannot be used ({fault}); name a file of PEM certificates with"
            " --ca-bundle or AWS_CA_BUNDLE, or leave it out."
        ) from error


async def load_credentials(session: aioboto3.Session) -> Signing:
    """Loads what requests are signed with, borrowed credentials included.

    botocore looks for them at the first request, when rows are under way already.

    Returns:
        The credentials; the session's clients sign with them.

    Raises:
        ConfigError: If there are none, or none that are still good.
    """
    try:
        credentials = await off_loop(session.get_credentials())
        if credentials is not None:
            await off_loop(credentials.get_frozen_credentials())
            signing = Signing(credentials)
            session._session._credentials = signing  # noqa: SLF001 - there is no other way in
            return signing
    except boto.ProfileNotFound:
        raise
    except RuntimeError:
        # "Credentials were refreshed, but the refreshed credentials are still expired."
        raise ConfigError(
            "The AWS credentials have ended already; log in again, or set AWS_ACCESS_KEY_ID,"
            " AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_CREDENTIAL_EXPIRATION anew."
        ) from None
    except FOREIGN as error:
        # No row has been read, so the text can hold no cell. But where an answer could not be
        # parsed it holds the answer, and with it what was lent.
        raise ConfigError(
            f"The AWS credentials could not be loaded ({one_line(error)}); mend the profile, log"
            " in again with `aws sso login`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        ) from error
    raise ConfigError(
        "There are no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a"
        " profile with --profile. An endpoint that checks no signatures takes --no-sign-request."
    )


def one_line(error: Exception) -> str:
    """What an exception says, in one line, without an answer or a password that it quotes."""
    if isinstance(error, ResponseParserError):
        return "the answer of whoever lends them makes no sense"
    return _without_password(" ".join(str(error).split()).rstrip("."))


class StraightSession(AIOHTTPSession):  # type: ignore[misc]
    """aiobotocore's HTTP session, which sends a request where it was told to and nowhere else.

    An exchange ends, whatever comes: after the time to connect and the time to read together, and
    where a body is longer than any that a service of ours sends. aiobotocore looks at each read
    alone, so that a byte now and then would hold a request for ever, and holds what comes.

    Certificates are verified as botocore's own session does it: for the name that was asked for,
    and behind a proxy, too. aiobotocore 2.25.1 takes any trusted certificate, and behind a proxy
    any at all: botocore leaves the name to urllib3, which is not in use there.

    It also sets the socket options that botocore asks for, among them keep-alive; aiobotocore
    2.25.1 leaves them out. Without, a peer that vanished is never noticed where there is no read
    timeout.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connector_args: dict[str, Any] = {
            **self._connector_args,
            "socket_factory": self._open_socket,
        }
        connect_s, read_s = self._timeout.sock_connect, self._timeout.sock_read
        self._timeout: aiohttp.ClientTimeout = aiohttp.ClientTimeout(
            total=None if connect_s is None or read_s is None else connect_s + read_s,
            sock_connect=connect_s,
            sock_read=read_s,
        )

    def _get_ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._get_ssl_context()
        context.check_hostname = True
        return context

    def _setup_proxy_ssl_context(self, proxy_url: str) -> ssl.SSLContext:
        return super()._setup_proxy_ssl_context(proxy_url) or self._get_ssl_context()

    def _open_socket(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, *_ = address
        opened = socket.socket(family, kind, protocol)
        for option in self._socket_options:
            opened.setsockopt(*option)
        return opened

    async def send(self, request: Any) -> Any:
        """Sends a request and reads the answer.

        Raises:
            SendError: If the answer is too long.
            HTTPClientError: For everything else that goes wrong, as one of its subclasses.
        """
        try:
            return await super().send(request)
        except boto.HTTPClientError as error:
            # aiobotocore wraps what it does not know, and has it quoted.
            if isinstance(error.kwargs.get("error"), SendError):
                raise error.kwargs["error"] from None
            raise

    async def _get_session(self, proxy_url: str | None) -> SimpleNamespace:
        session = await super()._get_session(proxy_url)
        return SimpleNamespace(request=partial(_ask, session))


async def _ask(session: aiohttp.ClientSession, *args: Any, **kwargs: Any) -> SimpleNamespace:
    """An answer as aiobotocore looks at it, with its body still to be read."""
    response = await session.request(*args, allow_redirects=False, **kwargs)
    return SimpleNamespace(
        url=response.url,
        status=response.status,
        raw_headers=response.raw_headers,
        read=partial(_read_body, response),
    )


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """The body as it came: what is packed stays packed, so it does not grow here.

    Raises:
        SendError: If it is longer than any that a service of ours sends. The rest is not read,
            and the connection is closed.
    """
    body = bytearray()
    with ExitStack() as on_failure:
        on_failure.callback(response.close)
        while piece := await response.content.read(_PIECE_BYTES):
            body += piece
            if len(body) > _MAX_BODY_BYTES:
                raise make_error("UnexpectedAnswer", response.status)
        on_failure.pop_all()
    return bytes(body)
