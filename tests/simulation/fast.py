"""What every simulation of a process can share, so that an execution takes milliseconds."""

from __future__ import annotations

import functools
import gc
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
    """Reads a service's model once, and of its operations those that a run calls.

    With the shapes that these are made of: all are gone through for every client that meets an
    error.
    """

    @functools.cache  # noqa: B019 - one for the process
    def load_service_model(self, *args: Any, **kwargs: Any) -> Any:
        model = super().load_service_model(*args, **kwargs)
        if "operations" not in model:
            return model
        used = {name: each for name, each in model["operations"].items() if name in _OPERATIONS}
        if not used:
            return model
        shapes: dict[str, Any] = {}
        for operation in used.values():
            _reach(operation, model["shapes"], shapes)
        return {**model, "operations": used, "shapes": shapes}


def _copied(node: dict[str, Any]) -> dict[str, Any]:
    """A copy of a client's handlers, as botocore makes it, without asking how to copy a list."""
    copied = {}
    for key, value in node.items():
        if type(value) is dict:
            copied[key] = _copied(value)
        elif type(value) is botocore.hooks.NodeList:
            copied[key] = botocore.hooks.NodeList(*map(list, value))
        else:
            copied[key] = value
    return copied


def _reach(part: Any, shapes: dict[str, Any], reached: dict[str, Any]) -> None:
    """Add the shapes that a part of a model names, and those that these name."""
    if isinstance(part, list):
        for each in part:
            _reach(each, shapes, reached)
    elif isinstance(part, dict):
        name = part.get("shape")
        if isinstance(name, str) and name not in reached:
            reached[name] = shapes[name]
            _reach(shapes[name], shapes, reached)
        for each in part.values():
            _reach(each, shapes, reached)


@functools.cache
def prepare() -> None:
    """What every simulation of this process can share; a client takes 0.1 s to make otherwise."""
    loader = _SmallLoader(include_default_search_paths=True)
    botocore.session.create_loader = lambda *_, **__: loader
    aliaser = botocore.hooks.EventAliaser
    alias = functools.cache(aliaser(None)._alias_event_name)
    aliaser._alias_event_name = lambda _, name: alias(name)
    # Asked of each of its own handlers for every client; all of them do.
    botocore.hooks.accepts_kwargs = lambda _: True
    botocore.hooks._PrefixTrie._recursive_copy = lambda _, node: _copied(node)
    metadata.version = functools.cache(metadata.version)
    logging.getLogger("bulk_updater").setLevel(logging.INFO)
    logging.getLogger("bulk_updater").addHandler(logging.NullHandler())
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    # What is there by now stays; the collector went through all of it every so often.
    gc.collect()
    gc.freeze()
