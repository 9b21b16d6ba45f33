"""The open connection: one request, one attempt, one receipt or one `SendError`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from botocore import exceptions as boto

from bulk_updater.connect.advice import Scene, advise
from bulk_updater.connect.credentials import NEVER, read_end
from bulk_updater.connect.judging import (
    judge_answer,
    make_error,
    measure_clock,
    translate,
    translate_lender,
)
from bulk_updater.connect.meanings import FOREIGN
from bulk_updater.connect.opening import (
    check_endpoint_url,
    enter_client,
    load_credentials,
    one_line,
    open_session,
)
from bulk_updater.connect.quotas import ask_quotas
from bulk_updater.connect.reading import READ_ATTRIBUTES, attributes_of, params_of
from bulk_updater.errors import (
    ConfigError,
    SendError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    import aioboto3

    from bulk_updater.config import ConnectionConfig
    from bulk_updater.connect.credentials import CredentialsEnd, Signing
    from bulk_updater.connect.quotas import AppliedQuotas
    from bulk_updater.model import Request
    from bulk_updater.operations import Operation

__all__ = ["Connect", "Receipt", "open_connect"]

# What the service says where it knows sooner than we do that credentials have ended.
_ENDED: Final = frozenset({"ExpiredToken", "ExpiredTokenException"})


@dataclass(frozen=True, slots=True)
class Receipt:
    """Connect's word that it made an update.

    Attributes:
        request_id: The service's id of the request, never empty.
        http_status: The status of the answer, 200 to 299.
    """

    request_id: str
    http_status: int


class Connect:
    """An open connection to Connect; made by `open_connect`.

    Safe for any number of concurrent calls on the event loop that it was opened on.

    Attributes:
        region: The region that requests are signed for.
        endpoint_url: Where requests go, after flags, environment and profile have had their say.
        credentials_end: When the credentials end for good, as far as anybody knows.
        clock_ahead_s: Seconds that this machine's clock is ahead of the service's, by the last
            answer that refused a request; None where none has.
    """

    def __init__(
        self,
        client: Any,
        session: aioboto3.Session,
        config: ConnectionConfig,
        *,
        signing: Signing | None = None,
        credentials_end: CredentialsEnd = NEVER,
    ) -> None:
        self.region: str = client.meta.region_name
        self.endpoint_url: str = client.meta.endpoint_url
        self.credentials_end = credentials_end
        self.clock_ahead_s: float | None = None
        self._signing = signing
        self._client = client
        self._session = session
        self._config = config
        self._api_names: Mapping[str, str] = client.meta.method_to_api_mapping

    async def send(self, request: Request) -> Receipt:
        """Makes one attempt.

        Take the token of the bucket before this call: botocore signs first and waits for a free
        connection afterwards, and a signature is good for five minutes.

        Args:
            request: What to send; `params` go to the operation as they stand.

        Returns:
            The receipt, if and only if Connect confirmed the update.

        Raises:
            SendError: For everything else, as one of its four subclasses.
        """
        metadata = (await self._call(request.operation, request.params))["ResponseMetadata"]
        return Receipt(request_id=metadata["RequestId"], http_status=metadata["HTTPStatusCode"])

    async def read_attributes(self, instance_id: str, contact_id: str) -> dict[str, str]:
        """Makes one attempt to read what is stored for a contact.

        Take the token of the bucket of `READ_ATTRIBUTES` before this call: reads have a quota of
        their own.

        Args:
            instance_id: The Connect instance.
            contact_id: The initial contact.

        Returns:
            Every attribute with its value. The values are cells: none belongs into a message.

        Raises:
            SendError: If they could not be read, as one of its four subclasses.
        """
        return attributes_of(await self._call(READ_ATTRIBUTES, params_of(instance_id, contact_id)))

    async def _call(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """One attempt at any operation: an answer of Connect's with a request id, or an error."""
        api_name = self._api_names.get(operation)
        if api_name is None:
            raise make_error("UnknownOperationException", None)
        signed_with = await self._load_credentials()
        try:
            answer: dict[str, Any] = await getattr(self._client, operation)(**params)
        except SendError:
            raise  # `judge_answer` or `Signing` spoke
        except FOREIGN as error:
            # `from None`: what botocore says of a parameter quotes it, and a traceback prints
            # causes.
            told = translate(error, api_name)
            if told.code in _ENDED and self._signing is not None:
                await self._renew(self._signing, signed_with)
            raise told from None
        metadata = answer["ResponseMetadata"]
        if not metadata.get("RequestId"):
            raise make_error("UnexpectedAnswer", metadata["HTTPStatusCode"])
        if self._signing is not None:
            self._signing.accepted(signed_with)
        return answer

    async def _load_credentials(self) -> Any:
        """What the next request is signed with; loaded here, where it is known what went wrong."""
        if self._signing is None:
            return None
        try:
            return await self._signing.get_frozen_credentials()
        except SendError:
            raise
        except FOREIGN as error:
            raise translate_lender(error) from None

    async def _renew(self, signing: Signing, rejected: Any) -> None:
        """Has the next attempt signed with new credentials, where there are any."""
        try:
            await signing.renew(rejected)
        except SendError:
            raise
        except FOREIGN as error:
            raise translate_lender(error) from None

    def note_clock(self, response_dict: dict[str, Any], **_: Any) -> None:
        """Compares the clocks by an answer that refuses (event `before-parse.connect`)."""
        if response_dict["status_code"] >= HTTPStatus.BAD_REQUEST:
            self.clock_ahead_s = measure_clock(response_dict["headers"])

    def advise(
        self,
        error: SendError,
        where: str,
        *,
        operation: str,
        instance_ids: Mapping[str, str],
        asks_too_long: bool = False,
    ) -> str:
        """Why a run stops, in one sentence; see `advice.advise`.

        Args:
            error: The last attempt's.
            where: How many requests ended so, such as `on the first 50 requests`.
            operation: The operation's snake_case name.
            instance_ids: The instance of each operation where the mapping holds it as a constant.
            asks_too_long: Whether it stops because of how long the answer asks to wait.
        """
        scene = Scene(self.region, instance_ids, self.clock_ahead_s)
        return advise(error, where, operation=operation, scene=scene, asks_too_long=asks_too_long)

    async def read_quotas(
        self, operations: Iterable[Operation], *, timeout_s: float = 3.0
    ) -> AppliedQuotas:
        """Asks Service Quotas what applies to the account, with this connection's credentials.

        They are not loaded again: a profile with MFA would ask for a second code.

        Args:
            operations: The operations whose quotas are wanted.
            timeout_s: Seconds that it may take in all, by the loop's clock, above 0. The default
                is ours: what a person waits at the start of a run without wondering.

        Returns:
            What could be read in this time. It raises nothing but `CancelledError`.
        """
        return await ask_quotas(
            self._session, self._config, self.endpoint_url, operations, timeout_s=timeout_s
        )


@asynccontextmanager
async def open_connect(config: ConnectionConfig, *, max_in_flight: int) -> AsyncIterator[Connect]:
    """Opens the one client of a run, and closes it.

    Takes 0.2 s, most of it to read the service's model; longer where credentials come from the
    network. All of it happens in a thread, so that the loop goes on.

    Args:
        config: How Connect is reached. What it leaves open, the environment and the profile say.
        max_in_flight: Connections that may be open at once, from 1. Not more requests than this
            should be under way: those that wait for a connection wait with their signature.

    Yields:
        The connection.

    Raises:
        ConfigError: If there is no region, no such profile, no credentials or no CA bundle, or if
            the endpoint's URL is malformed.
    """
    if config.endpoint_url is not None:
        check_endpoint_url(config.endpoint_url, allow_http=config.allow_http)
    async with AsyncExitStack() as stack:
        try:
            session = await asyncio.to_thread(open_session, config)
            signing = await load_credentials(session) if config.sign_requests else None
            client = await enter_client(stack, session, "connect", config, max_in_flight)
        except boto.ProfileNotFound as error:
            raise ConfigError(
                f"There is no AWS profile {error.kwargs['profile']!r}; name one that stands in the"
                " shared configuration with --profile or AWS_PROFILE, or none."
            ) from error
        except (boto.BotoCoreError, OSError, ValueError) as error:
            raise ConfigError(
                f"{one_line(error)}; look at --region, --endpoint-url and --profile, and at"
                " AWS_REGION, AWS_ENDPOINT_URL and AWS_CONFIG_FILE."
            ) from error
        ends = NEVER
        if signing is not None:
            ends = await asyncio.to_thread(read_end, session, signing)
        connect = Connect(client, session, config, signing=signing, credentials_end=ends)
        client.meta.events.register("before-parse.connect", connect.note_clock)
        client.meta.events.register("before-parse.connect", judge_answer)
        yield connect
