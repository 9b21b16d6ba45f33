"""From rows to requests: what a mapping file may say, and what it does to a frame."""

from bulk_updater.mapping.compile import CompiledMapping, compile_mapping
from bulk_updater.mapping.mapped import (
    EXPIRED,
    NEVER,
    Breach,
    MappedFrame,
    MappedOperation,
    UnsentRows,
)
from bulk_updater.mapping.skeleton import skeleton
from bulk_updater.mapping.spec import MappingSpec, load_spec, parse_spec

__all__ = [
    "EXPIRED",
    "NEVER",
    "Breach",
    "CompiledMapping",
    "MappedFrame",
    "MappedOperation",
    "MappingSpec",
    "UnsentRows",
    "compile_mapping",
    "load_spec",
    "parse_spec",
    "skeleton",
]
