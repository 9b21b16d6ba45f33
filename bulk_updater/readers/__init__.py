"""A source -> pandas frames of cells, in file order, in constant memory."""

from bulk_updater.readers.formats import open_source
from bulk_updater.readers.source import RawRow, Source

__all__ = ["RawRow", "Source", "open_source"]
