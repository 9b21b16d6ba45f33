"""What a whole run does to the disk and to the service, seen and disturbed by a simulation."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any
from unittest import mock

import bulk_updater.ledger.writer as ledger_writer
from bulk_updater.connect import client as connect_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bulk_updater.model import Request

    from .disk import Disk

__all__ = ["watch_io"]


def watch_io(
    disk: Disk,
    *,
    passing: Callable[[str], None],
    wants: Callable[[str], bool],
    watch: Callable[[Any, Request], Awaitable[Any]],
) -> list[Any]:
    """Patches that a run is to be wrapped in.

    Args:
        disk: What is durable, and what fails.
        passing: Told of each point that the run comes to.
        wants: Whether the run is to end at a point.
        watch: `Connect.send`, given the real one and the request.
    """
    fsync, rename = os.fsync, os.replace

    class File(ledger_writer.FileIO):
        def write(self, data: Any) -> int:
            passing("before write")
            disk.fail("write")
            half = len(data) // 2
            if half and wants("in a write"):
                super().write(data[:half])
                passing("in a write")
                return half + (super().write(data[half:]) or 0)
            return super().write(data) or 0

    send = connect_client.Connect.send

    async def watched(connect: Any, request: Request) -> Any:
        return await watch(functools.partial(send, connect), request)

    return [
        mock.patch("os.fsync", lambda fd: disk.fsync(fd, fsync)),
        mock.patch("os.replace", lambda old, new: disk.replace(old, new, rename)),
        mock.patch.object(ledger_writer, "FileIO", File),
        mock.patch.object(connect_client.Connect, "send", watched),
    ]
