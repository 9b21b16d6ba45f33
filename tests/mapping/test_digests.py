"""Digests of what rows write: the same for the same requests, and for no others, for years."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulk_updater.mapping.digests import Text, Written, row_digests
from bulk_updater.model import Request

from .helpers import INSTANCE, attributes, contact, entry, map_cells
from .test_properties import MAPPING, ROWS, columns_of

IDS = ("InstanceId", "InitialContactId", "ContactId")
M = 0xC6A4A7935BD1E995
ALL = (1 << 64) - 1


def mixed(word):
    word = word * M & ALL
    return (word ^ word >> 47) * M & ALL


def finished(state):
    state = (state ^ state >> 47) * M & ALL
    return state ^ state >> 47


def murmur(raw, seed=0):
    """MurmurHash64A, written down from its definition."""
    state = seed ^ len(raw) * M & ALL
    whole = len(raw) // 8 * 8
    for at in range(0, whole, 8):
        state = (state ^ mixed(int.from_bytes(raw[at : at + 8], "little"))) * M & ALL
    if whole < len(raw):
        state = (state ^ int.from_bytes(raw[whole:], "little")) * M & ALL
    return finished(state)


def blake(raw):
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def name(kind, path):
    return blake(b"".join(b"%d:%b" % (len(p.encode()), p.encode()) for p in (kind, *path)))


def words(value, path=()):
    """A request's words, by the words of the module's docstring."""
    if isinstance(value, dict):
        for key in sorted(value, key=str.encode):
            yield from words(value[key], (*path, key))
    elif isinstance(value, list):
        yield name("l", path)
        for item in value:
            yield name("i", path)
            yield from words(item, (*path, ""))
        yield name("e", path)
    else:
        raw = str(value).encode()
        yield name("n" if isinstance(value, int) else "t", path)
        yield blake(raw) if len(raw) > 256 else murmur(raw)


def digest(params):
    state = 0
    for word in words({key: value for key, value in params.items() if key not in IDS}):
        state = (state ^ mixed(word)) * M & ALL
    return finished(state) or 1


def digest_of(text, **cells):
    found = entry(text, **cells)
    assert isinstance(found, Request)
    return found.payload_digest


def test_the_reference_is_murmurhash64a():
    """The hash that the tests compare with passes SMHasher's verification of MurmurHash64A."""
    hashes = b"".join(
        murmur(bytes(range(length)), 256 - length).to_bytes(8, "little") for length in range(256)
    )
    assert murmur(hashes) & 0xFFFFFFFF == 0x1F0D3804


def test_what_is_kept_for_years_is_as_it_was():
    """The digests of some requests are these, on every platform and in every version to come."""
    text = attributes('a: "{A}"', "b: {column: B, empty: erase}", "c: constant")
    assert digest_of(text, A="", B="") == "914da455db804868"
    assert digest_of(text, A="é\0😀", B="x" * 300) == "28bb9a234c022a01"
    text = contact(
        "References: {crm: {Type: URL, Value: '{A}'}}",
        "SegmentAttributes:\n"
        '  n: {ValueInteger: "{N}"}\n'
        '  l: {ValueList: [{ValueString: "{A}"}, {ValueString: x}]}',
    )
    assert digest_of(text, A="v", N="007") == "16017a4ae3ac8c2a"


@settings(max_examples=100)
@given(ROWS)
def test_every_digest_is_that_of_its_request(rows):
    """Made by columns or from the request itself, digests are equal; a row without one has 0."""
    mapped = map_cells(MAPPING, columns_of(rows))
    for index, operation in enumerate(mapped.operations):
        made = list(mapped.entries())[index::2]
        wanted = [digest(e.params) if isinstance(e, Request) else 0 for e in made]
        assert operation.digests.tolist() == wanted
        assert [e.payload_digest for e in made if isinstance(e, Request)] == [
            f"{number:016x}" for number in wanted if number
        ]


@settings(max_examples=50)
@given(ROWS)
def test_digests_are_equal_where_requests_are(rows):
    """Two rows have one digest if and only if they write the same, whatever their contacts."""
    for operation in map_cells(MAPPING, columns_of(rows)).operations:
        sent = np.flatnonzero(operation.to_send).tolist()
        written = [
            {k: v for k, v in operation.request(at).params.items() if k not in IDS} for at in sent
        ]
        for (one, these), (other, those) in itertools.combinations(zip(sent, written), 2):  # noqa: B905
            assert (operation.digests[one] == operation.digests[other]) == (these == those)


@pytest.mark.parametrize("length", [*range(26), 255, 256, 257, 1000])
def test_a_text_of_any_length_beside_others(length):
    """Long and short texts, in one column and in a slice of one, each have their own words."""
    texts = ["", "x" * length, "y", "é" * (length // 2), "z" * 9, "x" * length]
    column = pa.array(["before", *texts], pa.string()).slice(1)
    written = {"a": Written(np.ones(len(texts), dtype=np.bool_), Text(column))}
    assert row_digests(written, len(texts)).tolist() == [digest({"a": text}) for text in texts]


def test_the_order_of_keys_in_the_file_is_nothing():
    """A mapping with its keys in another order gives every row the digest it had."""
    lines = ('a: "{A}"', "b: constant", 'c: "{B}"')
    digests = {
        digest_of(attributes(*order), A="1", B="2") for order in itertools.permutations(lines)
    }
    assert len(digests) == 1
    one = contact('Name: "{A}"', 'References: {r: {Type: URL, Value: "{A}"}}')
    other = contact('References: {r: {Value: "{A}", Type: URL}}', 'Name: "{A}"')
    assert digest_of(one, A="v") == digest_of(other, A="v")


def test_where_a_value_comes_from_is_nothing():
    """The same text from a cell, a template or the mapping itself has one digest; ids none."""
    digests = {
        digest_of(attributes("a: v"), A="v"),
        digest_of(attributes('a: "{A}"'), A="v"),
        digest_of(attributes("a: {column: A, lower: true}"), A="V"),
        digest_of(attributes("a: v", contact='"{A}"'), A="other"),
        digest_of(attributes("a: v").replace(INSTANCE, "another"), A="v"),
        digest_of(attributes("a: v", 'b: "{B}"'), A="v", B=""),
    }
    assert len(digests) == 1


def test_separators_and_what_is_left_out_are_told_apart():
    """No cell can look like two, like none, or like another key's."""
    text = attributes('a: "{A}"', 'b: "{B}"', "c: {column: C, empty: erase}", 'd: "{D}"')
    texts = ["", "\0", "\0\0", ":", "1:", "a", "b", "ab", "1:a", "\0a", "a\0", "\n", "e", "a1:b"]
    cells = list(itertools.product(texts, texts, ["", "\0"], ["", "a"]))
    (mapped,) = map_cells(
        text, {"id": ["k"] * len(cells), **dict(zip("ABCD", zip(*cells, strict=True), strict=True))}
    ).operations
    assert len(np.unique(mapped.digests)) == len(cells) == 14 * 14 * 2 * 2


def test_numbers_are_equal_as_numbers():
    """`7`, `+7` and `007` are one number, and the text 7 elsewhere is not it."""
    number = contact('SegmentAttributes: {n: {ValueInteger: "{N}"}}')
    assert len({digest_of(number, N=cell) for cell in ("7", "+7", "007")}) == 1
    assert digest_of(number, N="-7") != digest_of(number, N="7")
    text = contact('SegmentAttributes: {n: {ValueString: "{N}"}}')
    assert digest_of(text, N="7") != digest_of(number, N="7")


def test_lists_are_what_is_in_them_in_order():
    """An item that is left out leaves no gap, and two items that change places are another list."""
    text = contact(
        "Name: n",
        'SegmentAttributes: {l: {ValueList: [{ValueString: "{A}"}, {ValueString: "{B}"}]}}',
    )
    assert digest_of(text, A="v", B="") == digest_of(text, A="", B="v")
    assert digest_of(text, A="v", B="w") != digest_of(text, A="w", B="v")
    assert len({digest_of(text, A=a, B="") for a in ("", "v", "vw")}) == 3
    assert digest_of(text, A="vw", B="") != digest_of(text, A="v", B="w")
    nested = text.replace('{ValueString: "{A}"}', '{ValueList: [{ValueString: "{A}"}]}')
    assert digest_of(nested, A="v", B="w") != digest_of(text, A="v", B="w")


def test_neighbouring_texts_do_not_meet():
    """200,000 rows that count up in two columns have as many digests, every bit in half of them."""
    n_rows = 200_000
    numbers = [str(number) for number in range(n_rows)]
    there = np.ones(n_rows, dtype=np.bool_)
    written = {
        "a": Written(there, Text(pa.array(numbers))),
        "b": Written(there, Text(pa.array(numbers[::-1]))),
    }
    digests = row_digests(written, n_rows)
    assert len(np.unique(digests)) == n_rows
    set_bits = [int((digests >> np.uint64(bit) & np.uint64(1)).sum()) for bit in range(64)]
    # Six standard deviations of a fair coin.
    assert max(abs(n_set - n_rows // 2) for n_set in set_bits) < 6 * (n_rows / 4) ** 0.5


@given(st.lists(st.text(max_size=300), min_size=1, max_size=5))
def test_any_text_has_its_own_digest(texts):
    """The digest of any cell is that of the request with it, and no two cells share one."""
    (mapped,) = map_cells(
        attributes("a: {column: A, empty: erase}"),
        {"id": ["k"] * len(texts), "A": [text.replace("\ud800", "") for text in texts]},
    ).operations
    assert len(set(mapped.digests.tolist())) == len(set(texts))
