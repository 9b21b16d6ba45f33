"""`bulk-updater skeleton`: a mapping with every member of an operation."""

from __future__ import annotations

import pytest
import yaml

from bulk_updater.operations import OPERATION_NAMES, get_operation


@pytest.mark.parametrize("name", OPERATION_NAMES)
def test_a_skeleton_is_yaml_with_every_member(call, name):
    """Exit code 0; what is printed loads, and names every member of the operation."""
    ran = call(f"skeleton {name}")
    assert (ran.code, ran.err) == (0, "")
    assert name in yaml.safe_load(ran.out)
    operation = get_operation(name)
    assert operation.contact_member in ran.out
    assert ran.out.endswith("\n")
    assert not ran.out.endswith("\n\n")


def test_an_unknown_operation_is_refused_with_the_known_ones(call):
    """Exit code 2, and what there is."""
    ran = call("skeleton update_everything")
    assert (ran.code, ran.out) == (2, "")
    assert "'update_everything' is not one of" in ran.err
    assert all(name in ran.err for name in OPERATION_NAMES)
