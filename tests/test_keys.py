"""Keys of contacts: a million at once are what they are one by one."""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk_updater.keys import (
    KEY_DTYPE,
    ascending_order,
    contact_id_of,
    contact_key,
    contact_keys,
    find_places,
)

UUIDS = st.uuids().map(str)
# One letter away from a UUID in its usual form, at every place, or in another form.
ALMOST = (
    st.tuples(UUIDS, st.integers(0, 35), st.sampled_from("0fgF-/:`G \0é\uff11")).map(
        lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + 1 :]
    )
    | UUIDS.map(str.upper)
    | UUIDS.map(lambda text: text + "0")
    | UUIDS.map(lambda text: "{" + text[1:-1] + "}")
)
IDS = UUIDS | ALMOST | st.text(max_size=40) | st.just("é" * 18)

# Keys of which many are equal, or begin in the same way, or end in NULs.
HALVES = st.sampled_from([bytes(8), bytes(7) + b"\1", b"\1" + bytes(7), b"\xff" * 8])
KEYS = st.lists(st.tuples(HALVES | st.binary(min_size=8, max_size=8), HALVES).map(b"".join))


def keys_of(raw):
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


@given(ids=st.lists(IDS, max_size=30), start=st.integers(0, 5))
def test_an_arrow_array_of_ids_has_the_keys_of_each(ids, start):
    """Whatever the ids and wherever the array begins, its keys are those of each id by itself."""
    ids = [text.replace("\ud800", "") for text in ids]
    array = pa.array(["left out"] * start + ids, pa.string()).slice(start)
    keys = contact_keys(array)
    assert keys.dtype == KEY_DTYPE
    assert keys_of(keys.tobytes()) == [contact_key(text) for text in ids]
    assert contact_keys(ids).tobytes() == keys.tobytes()


@pytest.mark.parametrize("at", range(36))
def test_each_place_of_a_uuid_counts(at):
    """A letter that is none of a UUID's makes a digest of it, and a digit another key."""
    text = "01234567-89ab-cdef-0123-456789abcdef"
    changed = [text[:at] + letter + text[at + 1 :] for letter in "0123456789abcdefABCDEFg-"]
    keys = keys_of(contact_keys(pa.array(changed)).tobytes())
    assert keys == [contact_key(each) for each in changed]
    assert len(set(keys)) == len(set(changed))


def test_a_key_is_the_uuids_own_bytes():
    """The key of a UUID is its 16 bytes, NULs at the end included, and gives it back."""
    for number in (0, 1, 1 << 127, 0x0123 << 64, (1 << 128) - 1):
        text = str(uuid.UUID(int=number))
        (key,) = keys_of(contact_keys(pa.array([text])).tobytes())
        assert key == number.to_bytes(16, "big")
        assert contact_id_of(key) == text


def test_no_ids_have_no_keys():
    """An empty array has no keys, of the same type."""
    keys = contact_keys(pa.array([], pa.string()))
    assert (len(keys), keys.dtype) == (0, KEY_DTYPE)


def test_keys_sort_like_their_bytes():
    """numpy orders keys as bytes are ordered, so they can be looked up in what SQLite sorted."""
    ids = [str(uuid.UUID(int=n << 56 | n)) for n in (5, 0, 1 << 60, 256, 255, 1 << 71)]
    keys = contact_keys(pa.array(ids))
    assert keys_of(np.sort(keys).tobytes()) == sorted(contact_key(text) for text in ids)


@given(raw=KEYS)
def test_keys_are_ordered_as_bytes_and_equal_ones_keep_their_order(raw):
    """The order is that of a stable sort of the bytes, whatever keys have in common."""
    order = ascending_order(np.array(raw, KEY_DTYPE))
    assert order.tolist() == sorted(range(len(raw)), key=raw.__getitem__)


@given(raw=KEYS, sought=KEYS, n_shared=st.integers(0, 10))
def test_keys_are_found_where_they_are(raw, sought, n_shared):
    """Of whatever is sought: the place of each that is there, and none of any other."""
    held = sorted(set(raw))
    sought = [*sought, *raw[:n_shared]]
    places, are_there = find_places(np.array(held, KEY_DTYPE), np.array(sought, KEY_DTYPE))
    assert are_there.tolist() == [key in held for key in sought]
    assert places.tolist() == [held.index(key) for key in sought if key in held]


@pytest.mark.parametrize("n_rows", [0, 1, 3])
@pytest.mark.parametrize("start", [0, 2])
def test_other_ids_beside_uuids_change_nothing(start, n_rows):
    """An array of UUIDs only has the keys that they have beside an id of another form."""
    ids = [str(uuid.UUID(int=number << 100 | number)) for number in range(1, start + n_rows + 1)]
    alone = contact_keys(pa.array(ids, pa.string()).slice(start))
    beside = contact_keys(pa.array([*ids, "call-1"], pa.string()).slice(start))
    assert alone.tobytes() == beside[:-1].tobytes()
    assert len(alone) == n_rows
