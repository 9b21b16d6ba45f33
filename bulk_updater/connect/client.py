"""The open connection: one request, one attempt, one receipt or one `SendError`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore import exceptions as boto

from bulk_updater.connect.judging import judge_answer, make_error, translate
from bulk_updater.connect.meanings import FOREIGN
from bulk_updater.connect.opening import (
    check_credentials,
    check_endpoint_url,
    enter_client,
    open_session,
)
from bulk_updater.connect.quotas import ask_quotas
from bulk_updater.errors import (
    ConfigError,
    SendError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    import aioboto3

    from bulk_updater.config import ConnectionConfig
    from bulk_updater.connect.quotas import AppliedQuotas
    from bulk_updater.model import Request
    from bulk_updater.operations import Operation

__all__ = ["Connect", "Receipt", "open_connect"]


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
    """

    def __init__(self, client: Any, session: aioboto3.Session, config: ConnectionConfig) -> None:
        self.region: str = client.meta.region_name
        self.endpoint_url: str = client.meta.endpoint_url
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
        api_name = self._api_names.get(request.operation)
        if api_name is None:
            raise make_error("UnknownOperationException", None)
        try:
            answer = await getattr(self._client, request.operation)(**request.params)
        except SendError:
            raise  # `judge_answer` spoke
        except FOREIGN as error:
            # `from None`: what botocore says of a parameter quotes it, and a traceback prints
            # causes.
            raise translate(error, api_name) from None
        metadata = answer["ResponseMetadata"]
        request_id = metadata.get("RequestId")
        if not request_id:
            raise make_error("UnexpectedAnswer", metadata["HTTPStatusCode"])
        return Receipt(request_id=request_id, http_status=metadata["HTTPStatusCode"])

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
        check_endpoint_url(config.endpoint_url)
    async with AsyncExitStack() as stack:
        try:
            session = await asyncio.to_thread(open_session, config)
            if config.sign_requests:
                await check_credentials(session)
            client = await enter_client(stack, session, "connect", config, max_in_flight)
        except boto.ProfileNotFound as error:
            raise ConfigError(
                f"There is no AWS profile {error.kwargs['profile']!r}; name one that stands in the"
                " shared configuration with --profile or AWS_PROFILE, or none."
            ) from error
        except (boto.BotoCoreError, OSError, ValueError) as error:
            raise ConfigError(
                f"{str(error).rstrip('.')}; look at --region, --endpoint-url and --profile, and at"
                " AWS_REGION, AWS_ENDPOINT_URL and AWS_CONFIG_FILE."
            ) from error
        client.meta.events.register("before-parse.connect", judge_answer)
        yield Connect(client, session, config)
