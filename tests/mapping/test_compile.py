"""A mapping against a header and its frames: columns, `where`, ids, and what frames may hold."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bulk_updater.errors import MappingError, SourceError
from bulk_updater.mapping import compile_mapping
from bulk_updater.model import Frame, Outcome, Request

from .helpers import (
    INSTANCE,
    SOURCE,
    attributes,
    contact,
    entries,
    entry,
    frame,
    invalid,
    parse,
    refusal,
)


class TestColumns:
    TEXT = attributes(
        'a: "{A} {B}"',
        "b: {column: B}",
        '"*": {except: [Z]}',
        before="source: {where: [{column: W, not: x}, {column: A, not: y}]}\n",
    ) + contact("Name: {template: '{C}{A}'}")

    def test_each_used_column_once(self):
        """A mapping names each column that it uses once, and no other."""
        header = ["id", "A", "B", "C", "W", "Z"]
        compiled = compile_mapping(parse(self.TEXT), header, SOURCE)
        assert sorted(compiled.columns) == ["A", "B", "C", "W", "id"]
        narrow = attributes('a: "{B}{B}"', "b: constant")
        assert compile_mapping(parse(narrow), header, SOURCE).columns == ("id", "B")

    def test_operations_in_the_files_order(self):
        """A compiled mapping names its operations as the file orders them."""
        compiled = compile_mapping(parse(self.TEXT), ["id", "A", "B", "C", "W", "Z"], SOURCE)
        assert [operation.name for operation in compiled.operations] == [
            "update_contact_attributes",
            "update_contact",
        ]

    @pytest.mark.parametrize(
        ("text", "line", "column"),
        [
            (attributes('a: "{Teir}"'), 5, "Teir"),
            (attributes("a:", "  strip: true", "  column: Teir"), 7, "Teir"),
            (attributes("a:", "  strip: true", '  template: "x{Teir}"'), 7, "Teir"),
            (attributes("a: x", contact='"{Teir}"'), 3, "Teir"),
            (attributes('"*":', "  except:", "  - id", "  - Teir"), 8, "Teir"),
            (
                attributes("a: x", before="source:\n  where:\n  - not: x\n    column: Teir\n"),
                4,
                "Teir",
            ),
            (contact('References: {a: {Type: URL,\n    Value: "{Teir}"}}'), 5, "Teir"),
            (attributes('a: "{ Tier }"'), 5, " Tier "),
        ],
    )
    def test_a_missing_one_is_refused(self, text, line, column):
        """A column that the source does not have is refused at its line, with the nearest."""
        assert refusal(text, ["id", "Tier", "Name"]) == (
            f'line {line}: export.csv has no column "{column}". Did you mean "Tier"? Known: id, '
            "Tier, Name."
        )


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("in: [a, b]", ["a", "b"]),
        ("not_in: [a, b]", ["", "A", "ab", " a", "xa"]),
        ("equals: a", ["a"]),
        ('equals: ""', [""]),
        ('not: ""', ["a", "b", "A", "ab", " a", "xa"]),
        ("not: a", ["", "b", "A", "ab", " a", "xa"]),
        ("matches: a", ["a", "ab", " a", "xa"]),
        ('matches: "^a$"', ["a"]),
        ('matches: "(?i)^a"', ["a", "A", "ab"]),
        ('matches: "^$"', [""]),
        ('matches: "[[a]"', ["a", "ab", " a", "xa"]),
    ],
)
def test_where_operators(condition, kept):
    """Each operator of `where` keeps the rows it says, cells as they stand; others are SKIPPED."""
    cells = ["a", "b", "", "A", "ab", " a", "xa"]
    text = attributes('a: "<{C}>"', before=f"source: {{where: [{{column: C, {condition}}}]}}\n")
    found = entries(text, {"C": cells})
    assert [row.params["Attributes"]["a"][1:-1] for row in found if isinstance(row, Request)] == [
        cell for cell in kept if cell
    ]
    filtered = [row for row in found if getattr(row, "error_code", None) == "filtered"]
    assert [row.row for row in filtered] == [
        number for number, cell in enumerate(cells, 1) if cell not in kept
    ]
    assert {row.outcome for row in filtered} <= {Outcome.SKIPPED}
    assert {(row.contact_id, row.instance_id, row.error) for row in filtered} <= {(None,) * 3}


def test_all_conditions_must_hold():
    """A row that one condition leaves out is out, and nothing else about it is looked at."""
    before = "source: {where: [{column: A, in: [x, y]}, {column: B, not: ''}]}\n"
    text = attributes("a: {column: A, empty: reject}", contact='"{C}"', before=before)
    found = entries(
        text, {"A": ["x", "x", "z", "y", ""], "B": ["1", "", "1", "1", "1"], "C": ["c", *[""] * 4]}
    )
    assert [getattr(row, "error_code", None) for row in found] == [
        None,
        "filtered",
        "filtered",
        "empty_id",
        "filtered",
    ]


def test_a_column_may_stand_in_where_and_in_a_template():
    """What `where` asks about can be sent as well."""
    text = attributes('a: "{C}"', before="source: {where: [{column: C, not: x}]}\n")
    assert [isinstance(row, Request) for row in entries(text, {"C": ["x", "y"]})] == [False, True]


class TestIds:
    def test_an_empty_one_is_invalid(self):
        """A row without a contact or without an instance is INVALID, whatever else it has."""
        text = attributes('a: "{C}"', contact='"{Key}"')
        for cell in ("v", ""):
            assert invalid(text, Key="", C=cell) == (
                "empty_id",
                (
                    'row 1: InitialContactId (from "Key") is empty; '
                    "`source.where` can leave such rows "
                    "out."
                ),
            )
        text = text.replace(INSTANCE, '"{I}"')
        assert invalid(text, Key="k", C="v", I="")[0] == "empty_id"
        assert entry(text, Key="", C="v", I="").contact_id is None

    @pytest.mark.parametrize(
        ("member", "limit"), [("InitialContactId", 256), ("InstanceId", 100), ("ContactId", 256)]
    )
    def test_lengths(self, member, limit):
        """An id at its limit is sent and one more is INVALID, in characters."""
        text = contact("Name: n") if member == "ContactId" else attributes("a: x")
        text = text.replace('"{id}"' if "Contact" in member else INSTANCE, '"{I}"')
        found = entry(text, I="é" * limit)
        assert isinstance(found, Request)
        assert "é" * limit in (found.contact_id, found.instance_id)
        rule, error = invalid(text, I="é" * (limit + 1))
        assert rule == "too_long"
        assert error == (
            f'row 1: {member} (from "I") has {limit + 1} characters; at most {limit} are allowed.'
        )
        assert entry(text, I="é" * (limit + 1)).contact_id is None

    @pytest.mark.parametrize("partition", ["aws", "aws-us-gov"])
    @pytest.mark.parametrize("rest", ["", "/contact/c1"])
    def test_an_instance_arn_becomes_its_id(self, partition, rest):
        """The ARN of an instance, or of what is in one, is sent as the instance's id."""
        arn = f"arn:{partition}:connect:eu-west-2:123456789012:instance/{INSTANCE}{rest}"
        for text in (
            attributes("a: x").replace(INSTANCE, arn),
            attributes("a: x").replace(INSTANCE, '"{I}"'),
        ):
            found = entry(text, I=arn)
            assert found.params["InstanceId"] == found.instance_id == INSTANCE

    def test_other_arns_stand(self):
        """Any other text stays as it is, and a contact's id always does."""
        arn = "arn:aws:lex:eu-west-2:1:instance/x"
        found = entry(attributes("a: x", contact='"{C}"').replace(INSTANCE, '"{I}"'), I=arn, C=arn)
        assert (found.instance_id, found.contact_id) == (arn, arn)

    def test_ids_of_every_row(self):
        """An instance may come from the row, and be an ARN in some of them."""
        text = attributes("a: x", contact='"{C}"').replace(INSTANCE, '"{I}"')
        found = entries(text, {"I": ["i", "arn:aws:connect:r:1:instance/j"], "C": ["c", "d"]})
        assert [row.lane for row in found] == [
            ("update_contact_attributes", "i", "c"),
            ("update_contact_attributes", "j", "d"),
        ]


class TestExpectedInstance:
    """`--expect-instance`: no other instance may be written to."""

    ARN = f"arn:aws:connect:eu-west-2:123456789012:instance/{INSTANCE}"

    @pytest.mark.parametrize("expected", [INSTANCE, ARN])
    @pytest.mark.parametrize("named", [INSTANCE, ARN])
    def test_the_same_by_id_or_arn(self, expected, named):
        """The expected instance is taken, however either is written."""
        text = attributes("a: x").replace(INSTANCE, named)
        compiled = compile_mapping(parse(text), ["id"], SOURCE, expect_instance=expected)
        (found,) = compiled.map_frame(frame({"id": ["c"]})).entries()
        assert found.instance_id == INSTANCE

    def test_another_in_the_mapping_is_refused_at_its_line(self):
        """A mapping for another instance is refused before a row is read, in any operation."""
        text = contact("Name: n") + attributes("a: x").replace(INSTANCE, "other")
        with pytest.raises(MappingError) as caught:
            compile_mapping(parse(text), ["id"], SOURCE, expect_instance=self.ARN)
        assert caught.value.message == (
            f'mapping.yaml, line 6: --expect-instance allows only "{INSTANCE}", and InstanceId of '
            'update_contact_attributes is "other". Nothing was sent. Name the same instance in '
            "both, or leave the flag out."
        )

    def test_another_in_a_row_is_invalid(self):
        """A row for another instance is INVALID, without a word of what it names."""
        text = attributes("a: x").replace(INSTANCE, '"{I}"')
        compiled = compile_mapping(parse(text), ["id", "I"], SOURCE, expect_instance=INSTANCE)
        cells = {"id": ["c"] * 4, "I": [INSTANCE, "planted", self.ARN, ""]}
        found = list(compiled.map_frame(frame(cells)).entries())
        assert [getattr(each, "error_code", None) for each in found] == [
            None,
            "unexpected_instance",
            None,
            "empty_id",
        ]
        assert found[1].outcome is Outcome.INVALID
        assert found[1].error == (
            'row 2: InstanceId (from "I") is not the instance that --expect-instance names.'
        )
        assert found[1].instance_id is None


class TestFrames:
    TEXT = attributes('a: "{C}"', "other: o")

    def mapped(self, column, rows=None):
        n_rows = len(column)
        cells = pd.DataFrame({"id": pd.Series(["c"] * n_rows, index=column.index), "C": column})
        numbers = np.arange(1, n_rows + 1) if rows is None else np.asarray(rows)
        compiled = compile_mapping(parse(self.TEXT), ["id", "C"], SOURCE)
        return list(compiled.map_frame(Frame(SOURCE, numbers, cells)).entries())

    @pytest.mark.parametrize(
        "column",
        [
            pd.Series(["v", None, "w"], dtype=object),
            pd.Series(["v", np.nan, "w"], dtype=object),
            pd.Series(["v", pd.NA, "w"], dtype=object),
            pd.Series(["v", pd.NaT, "w"], dtype=object),
            pd.Series(["v", None, "w"], dtype="str"),
            pd.Series(["v", None, "w"], dtype="string"),
            pd.Series(["v", None, "w"], dtype="category"),
            pd.Series(["v", None, "w"], dtype=pd.ArrowDtype(pa.string())),
            pd.Series(["v", None, "w"], dtype=pd.ArrowDtype(pa.large_string())),
            pd.Series(["v", None, "w"], dtype=pd.ArrowDtype(pa.string_view())),
            pd.Series(["v", None, "w"], index=[7, 7, -1], dtype=object),
            pd.Series(
                pa.chunked_array([["v"], [None, "w"]], pa.string()),
                dtype=pd.ArrowDtype(pa.string()),
            ),
        ],
        ids=lambda column: str(column.dtype),
    )
    def test_missing_is_empty(self, column):
        """In a frame of any text type, with any index, what is missing is empty, never "nan"."""
        assert [row.params["Attributes"].get("a") for row in self.mapped(column)] == [
            "v",
            None,
            "w",
        ]

    @pytest.mark.parametrize(
        "column",
        [
            pd.Series([None, None]),
            pd.Series([np.nan, np.nan]),
            pd.Series([pd.NaT, pd.NaT]),
            pd.Series(pa.nulls(2), dtype=pd.ArrowDtype(pa.null())),
        ],
        ids=lambda column: str(column.dtype),
    )
    def test_all_missing_is_empty(self, column):
        """A column in which everything is missing is empty, whatever type was made of it."""
        assert [row.params["Attributes"] for row in self.mapped(column)] == [{"other": "o"}] * 2

    @pytest.mark.parametrize(
        "column",
        [
            pd.Series([1, 2]),
            pd.Series([1.5, np.nan]),
            pd.Series([True, False]),
            pd.Series(["v", 1], dtype=object),
            pd.Series([b"v", b"w"], dtype=object),
            pd.Series([["v"], ["w"]], dtype=object),
            pd.Series([{"v": 1}, None], dtype=object),
            pd.Series(["\ud800", "v"], dtype=object),
            pd.Series([10**30, 1], dtype=object),
            pd.Series([1, 2], dtype="category"),
            pd.Series(pd.to_datetime(["2024-01-01"])),
            pd.Series([1j]),
            pd.Series([object()], dtype=object),
            pd.Series([1], dtype=pd.ArrowDtype(pa.int64())),
        ],
        ids=lambda column: f"{column.dtype}-{type(column[0]).__name__}",
    )
    def test_what_is_no_text_is_refused(self, column):
        """Types are never guessed: a column that is no text is refused by name."""
        with pytest.raises(
            SourceError, match=r'export\.csv: the column "C" holds .*not text'
        ) as caught:
            self.mapped(column)
        assert caught.value.source == SOURCE

    def test_a_frame_without_a_column(self):
        """A frame that lacks a column, or has one twice, or other row numbers, is refused."""
        compiled = compile_mapping(parse(self.TEXT), ["id", "C"], SOURCE)
        one = np.array([1])
        for numbers, cells, message in (
            (one, pd.DataFrame({"id": ["c"]}), 'has no column "C"'),
            (
                one,
                pd.DataFrame([["c", "v", "w"]], columns=["id", "C", "C"]),
                'column "C" more than',
            ),
            (np.array([1, 2]), pd.DataFrame({"id": ["c"], "C": ["v"]}), "as many cells as row"),
        ):
            with pytest.raises(SourceError, match=message):
                compiled.map_frame(Frame(SOURCE, numbers, cells))

    def test_rows_of_no_frame(self):
        """A frame of no rows has no entries, of any type."""
        assert self.mapped(pd.Series([], dtype=object)) == []
        assert self.mapped(pd.Series([], dtype="int64")) == []
        empty = pd.ArrowDtype(pa.string())
        assert self.mapped(pd.Series(pa.chunked_array([], pa.string()), dtype=empty)) == []

    def test_more_columns_than_used(self):
        """Columns that the mapping does not use may hold anything."""
        compiled = compile_mapping(parse(self.TEXT), ["id", "C", "D"], SOURCE)
        cells = pd.DataFrame({"D": [1], "C": ["v"], "id": ["c"]})
        (found,) = compiled.map_frame(Frame(SOURCE, np.array([9]), cells)).entries()
        assert (found.row, found.params["Attributes"]) == (9, {"a": "v", "other": "o"})


def test_5000_columns():
    """`"*"` over thousands of columns maps a frame in a few seconds."""
    cells = {"id": ["c"] * 50} | {f"c{i}": ["v"] * 50 for i in range(5000)}
    started = time.process_time()
    compiled = compile_mapping(parse(attributes('"*": {except: [id]}')), list(cells), SOURCE)
    (mapped,) = compiled.map_frame(frame(cells)).operations
    assert mapped.to_send.all()
    assert len(mapped.request(0).params["Attributes"]) == 5000
    assert time.process_time() - started < 15
