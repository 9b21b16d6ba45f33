"""Writing to contacts without asking the state what they hold, and telling it so.

A night with `--only-changed` leaves out what a contact holds already. Where another run, a retry or
mended rows have written to the contact in between, what the state remembers of it is no longer
true. So whoever does not ask the state puts each contact in doubt before it is sent to: the next
night sends it again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bulk_updater.outlast import outlast
from bulk_updater.pipeline.changes import owner_of, state_file
from bulk_updater.pipeline.threads import entered_in_thread
from bulk_updater.state import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bulk_updater.config import RunConfig
    from bulk_updater.model import Request
    from bulk_updater.pipeline.feeding import BeforeSending
    from bulk_updater.pipeline.quotas import KnownQuotas

__all__ = ["doubting"]


@asynccontextmanager
async def doubting(
    config: RunConfig, state: State | None, known: KnownQuotas
) -> AsyncIterator[BeforeSending | None]:
    """Put contacts in doubt while inside.

    Args:
        config: The run.
        state: What is remembered, where the run holds it; None opens the file beside the runs.
        known: Whose account it is; where nobody knows, the contact is doubted in every one.

    Yields:
        What is to be awaited before requests are sent; None where nothing is remembered.

    Raises:
        StateError: It cannot be opened, or later, written; nothing may be sent then.
    """
    path = state_file(config)
    if state is None and not await asyncio.to_thread(State.is_kept, path):
        yield None
        return
    owner = owner_of(config, known)

    async def about_to_send(requests: Sequence[Request]) -> None:
        contacts: dict[tuple[str, str], list[str]] = defaultdict(list)
        for request in requests:
            contacts[request.operation, request.instance_id].append(request.contact_id)
        for (operation, instance_id), contact_ids in contacts.items():
            doubted = asyncio.to_thread(
                opened.doubt,
                contact_ids,
                account=owner.account,
                region=owner.region,
                instance_id=instance_id,
                operation=operation,
            )
            await outlast(asyncio.create_task(doubted))

    if state is not None:
        opened = state
        yield about_to_send
        return
    async with entered_in_thread(State.beside(path)) as opened:
        yield about_to_send
