"""The durable record of a run: what is settled, whatever happens to the process.

The file
========

`ledger.jsonl` is UTF-8 text, one JSON object a line, each ended by one newline, mode 0600 and
append only. A line is a *record* when it is a JSON object with

    row        a whole number from 1
    operation  a string, such as `update_contact`
    outcome    one of `bulk_updater.model.Outcome`
    run_id     a string

and is at most 1 MiB long; the other keys are `Result.to_record`'s. There is no header, no
checksum and no index: `tail`, `grep` and `jq` are its readers too. A row and operation may have
more than one record (a retry later); the last one *stands*.

Recovery
========

The format is designed from its torn tail backwards. Records are appended in groups, and a group
is acknowledged only after an fsync that came after its last byte. So whatever a crash, a kill or
a full disk leaves behind the last acknowledged byte was promised to nobody: whole records (kept,
since they are true), half a record, a record without its newline, NULs or garbage. `recover`
keeps every record up to the first line that is none, copies what is behind it to
`ledger.jsonl.torn-<offset>`, and only then cuts the ledger there.

The cut is made only if no record follows. A bad line with a record behind it cannot come from an
append that was cut short: it is damage in the middle, of bytes that *were* promised. Then
`LedgerCorrupt` says where, and nothing is touched. `repair_ledger` cuts there, too, but only when
a person has decided so.

The modules
===========

    records   what a record is; streaming them from a file
    bulk      the lines of thousands of rows that are not sent
    settled   which rows are settled and how, in half a byte each
    recovery  keep the whole records, cut the torn tail
    repair    keep a copy, cut before damage in the middle
    writer    append with group commit
    rundir    the run directory: its lock, its files, run.json
    files     the few file operations that durability is made of
"""

from __future__ import annotations

from bulk_updater.ledger.bulk import UnsentBlock
from bulk_updater.ledger.records import read_results, standing_results
from bulk_updater.ledger.recovery import Recovery, recover
from bulk_updater.ledger.repair import Repair, repair_ledger
from bulk_updater.ledger.rundir import RunDir
from bulk_updater.ledger.settled import SettledRows
from bulk_updater.ledger.writer import Ledger

__all__ = [
    "Ledger",
    "Recovery",
    "Repair",
    "RunDir",
    "SettledRows",
    "UnsentBlock",
    "read_results",
    "recover",
    "repair_ledger",
    "standing_results",
]
