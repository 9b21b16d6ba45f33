"""What people get wrong, with what they should be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from .conftest import MAPPING

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = "Contact,Number,Note\n"
GOOD = HEADER + "c-1,1,one\nc-2,2,two\n"


def attributes(*lines: str) -> str:
    """A mapping with these lines as its attributes."""
    return MAPPING.partition("    number")[0] + "".join(f"    {line}\n" for line in lines)


def parquet_cut_short() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"Contact": ["c-1"], "Number": ["1"], "Note": ["n"]}), sink)
    return bytes(sink.getvalue())[:-20]


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        name: What is wrong.
        says: What standard error must say, piece by piece.
        mapping: The mapping file.
        source: The source file.
        words: The command after `run`; {url} is the sandbox.
        changes: What differs in the environment; None takes a variable away.
        code: The exit code.
    """

    name: str
    says: tuple[str, ...]
    mapping: str | bytes = MAPPING
    source: str | bytes = GOOD
    words: str = "mapping.yaml export.csv --endpoint-url {url}"
    changes: Mapping[str, str | None] = field(default_factory=dict)
    code: int = 2


def source_case(name: str, source: str | bytes, *says: str) -> Case:
    return Case(name, says, source=source)


def mapping_case(name: str, mapping: str | bytes, *says: str) -> Case:
    return Case(name, ("mapping.yaml", *says), mapping=mapping)


def flag_case(flags: str, *says: str) -> Case:
    return Case(flags, says, words=f"mapping.yaml export.csv --endpoint-url {{url}} {flags}")


REFUSED = (
    Case(
        "no such source", ("nowhere.csv: there is no such file;",), words="mapping.yaml nowhere.csv"
    ),
    Case("no such mapping", ("nowhere.yaml", "no such file"), words="nowhere.yaml export.csv"),
    Case("a folder", ("is a folder; name the files in it.",), words="mapping.yaml ."),
    Case("no source", ("Missing argument 'SOURCE...'.", "run --help"), words="mapping.yaml"),
    source_case("an empty file", "", "export.csv: ", "empty"),
    source_case(
        "a name twice", "Contact,Note,Note\nc,1,2\n", "more than once: 'Note' (columns 2 and 3)"
    ),
    source_case("a blank name", "Contact,,Note\nc,1,2\n", "no name for column 2; name it"),
    source_case("UTF-16 read as UTF-8", GOOD.encode("utf-16"), "export.csv: ", "utf-16"),
    source_case("a NUL byte in the header", "Con\0tact,Number,Note\nc,1,2\n", "export.csv"),
    Case(
        "a Parquet file cut short",
        ("export.parquet", "Parquet"),
        words="mapping.yaml export.parquet --endpoint-url {url}",
        source=parquet_cut_short(),
    ),
    mapping_case("no YAML", "update_contact: [1, {", "line 1"),
    mapping_case("a tab in YAML", "update_contact:\n\tName: x\n", "line 2"),
    mapping_case("no mapping", "- one\n- two\n", "line 1", "keys with values"),
    mapping_case("an empty mapping", "", "update_contact_attributes"),
    mapping_case("no operation", "source: {encoding: utf-8}\n", "update_contact_attributes"),
    mapping_case(
        "an unknown operation",
        MAPPING.replace("attributes:", "attribute:", 1),
        "line 2",
        '"update_contact_attributes"',
    ),
    mapping_case(
        "an unknown key", "source: {encodin: utf-8}\n" + MAPPING, "line 1", "encodin", '"encoding"'
    ),
    mapping_case(
        "an unknown member",
        MAPPING.replace("InitialContactId", "InitialContact"),
        "line 4",
        '"InitialContactId"',
    ),
    mapping_case(
        "a column that is missing", attributes('number: "{Numbr}"'), "line 6", "Numbr", '"Number"'
    ),
    mapping_case(
        "an illegal attribute key", attributes('"my key!": "{Number}"'), "line 6", "my key!"
    ),
    mapping_case("a key twice", attributes('a: "{Number}"', 'a: "{Note}"'), "line 7"),
    mapping_case(
        "an id that is missing",
        attributes('a: "x"').replace('InitialContactId: "{Contact}"', ""),
        "InitialContactId",
    ),
    mapping_case(
        "a mapping in Latin-1", MAPPING.replace("note:", "näte:").encode("latin-1"), "UTF-8"
    ),
    Case(
        "mapping and source swapped",
        ("export.csv is named as the mapping and looks like an export.", "comes first"),
        words="export.csv mapping.yaml --endpoint-url {url}",
    ),
    Case(
        "a Parquet file for a mapping",
        ("export.parquet is named as the mapping", "comes first"),
        words="export.parquet mapping.yaml --endpoint-url {url}",
        source=parquet_cut_short(),
    ),
    Case(
        "no credentials",
        ("There are no AWS credentials; set AWS_ACCESS_KEY_ID",),
        changes={"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
    ),
    Case(
        "no region",
        ("There is no AWS region; name one with --region",),
        changes={"AWS_REGION": None},
    ),
    Case(
        "no such profile", ("There is no AWS profile 'nobody'",), changes={"AWS_PROFILE": "nobody"}
    ),
    Case(
        "no such CA bundle",
        ("nowhere.pem cannot be used",),
        changes={"AWS_CA_BUNDLE": "nowhere.pem"},
    ),
    Case(
        "an endpoint that is no URL",
        ("--endpoint-url is 'localhost:80'",),
        words="mapping.yaml export.csv --endpoint-url localhost:80",
    ),
    flag_case("--sandbox", "--sandbox and --endpoint-url exclude each other"),
    flag_case("--run-dir export.csv/run", "export.csv/run", "Not a directory", "--run-dir"),
    flag_case("--run-dir export.csv", "export.csv", "--run-dir"),
    flag_case(
        "--run-dir /proc/self/run",
        "/proc/self/run",
        "cannot be used as a run directory",
        "--run-dir",
    ),
    flag_case("--run-dir .", "is not a run directory", "--run-dir"),
    flag_case("--rate 0", '"0" is no rate'),
    flag_case("--quota-share 2", "--quota-share is 2"),
    flag_case("--limit 0", "--limit is 0"),
    flag_case("--cli-read-timeout -1", "-1 is no time"),
    flag_case("--max-failures x", '"x" is none of N'),
)

TAKEN = (
    Case("a header alone", (), source=HEADER, code=0),
    Case(
        "Windows-1252 read as UTF-8",
        (),
        source=HEADER.encode() + b"u-1,1,plain\nu-2,2,caf\xe9\nu-3,3,plain\n",
        code=1,
    ),
    Case(
        "a ragged row", (), source=HEADER + "r-1,1,one\nr-2,2\nr-3,3,three,3\nr-4,4,four\n", code=1
    ),
    Case("a NUL byte", (), source=HEADER + "n-1,1,one\nn-2,2,t\0wo\nn-3,3,three\n", code=1),
    Case("a long contact id", (), source=HEADER + f"{'x' * 300},1,one\nl-2,2,two\n", code=1),
    Case(
        "33,000 bytes of attributes",
        (),
        source=HEADER + f"b-1,1,{'x' * 33_000}\nb-2,2,two\n",
        code=1,
    ),
    Case(
        "an endpoint that refuses the connection",
        ("error: ", "nobody answers at the endpoint", "Connection refused"),
        words="mapping.yaml export.csv --max-attempts 2 --max-failures 2 "
        "--endpoint-url http://127.0.0.1:1",
        code=3,
    ),
)
