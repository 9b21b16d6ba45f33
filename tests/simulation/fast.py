"""What every simulation of a process can share, so that an execution takes milliseconds."""

from __future__ import annotations

import functools
import logging
import os
from importlib import metadata
from typing import Any

import botocore.hooks
import botocore.loaders
import botocore.session

_OPERATIONS = {
    *("UpdateContactAttributes", "UpdateContact", "GetContactAttributes"),
    *("GetServiceQuota", "GetCallerIdentity"),
}


class _SmallLoader(botocore.loaders.Loader):
    """Reads a service's model once, and of its operations those that a run calls."""

    @functools.cache  # noqa: B019 - one for the process
    def load_service_model(self, *args: Any, **kwargs: Any) -> Any:
        model = super().load_service_model(*args, **kwargs)
        if "operations" not in model:
            return model
        used = {name: each for name, each in model["operations"].items() if name in _OPERATIONS}
        return {**model, "operations": used or model["operations"]}


@functools.cache
def prepare() -> None:
    """What every simulation of this process can share; a client takes 0.1 s to make otherwise."""
    loader = _SmallLoader(include_default_search_paths=True)
    botocore.session.create_loader = lambda *_, **__: loader
    aliaser = botocore.hooks.EventAliaser
    alias = functools.cache(aliaser(None)._alias_event_name)
    aliaser._alias_event_name = lambda _, name: alias(name)
    metadata.version = functools.cache(metadata.version)
    logging.getLogger("bulk_updater").setLevel(logging.INFO)
    logging.getLogger("bulk_updater").addHandler(logging.NullHandler())
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
