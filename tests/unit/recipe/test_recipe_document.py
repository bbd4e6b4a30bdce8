"""Strict YAML: what is let through, where everything is, and every problem at once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from compress.core.errors import DocumentError, Problem, UsageError
from compress.recipe.document import Fraction, Name, Number, PositiveInt, Strict, decode, parse, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-7", -7), ("010", 10), ("0x1F", 31), ("0o17", 15), ("1.5", 1.5), ("1e-3", 0.001), (".5", 0.5),
        ("5.", 5.0), ("+2", 2), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("yes", "yes"), ("off", "off"), ("tRue", "tRue"), ("1_000", "1_000"), ("12:30:45", "12:30:45"),
        ("2024-01-31", "2024-01-31"), ("none", "none"), ("NaN", "NaN"), ("'1'", "1"), ('"null"', "null"),
        ("0o8", "0o8"), ("9007199254740991", 2**53 - 1),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse(f"a: {text}\n", "f").data["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\n a: 3\n", "f:3:3 document: mapping values are not allowed here"),
        ("a: 1\nb: {c: 1, d: 2, c: 3}\n", "f:2:17 b.c: is there twice; the first is in line 2"),
        ("a: 1\nb:\n- x: .nan\n", "f:3:6 b[0].x: NaN and infinities are not allowed"),
        ("a: -.Inf", "f:1:4 a: NaN and infinities are not allowed"),
        ("a: 1e999", "f:1:4 a: is too large a number (quote it if it is text)"),
        ("a: 9007199254740992", "f:1:4 a: is too large a number (quote it if it is text)"),
        ("a: " + "1" * 5000, "f:1:4 a: is too large a number (quote it if it is text)"),
        ("a: &x 1", "f:1:4 a: anchors (&name) are not allowed"),
        ("a: !!python/name:os.system 1", "f:1:4 a: tags (!name) are not allowed"),
        ("a: !!str 1", "f:1:4 a: tags (!name) are not allowed"),
        ("<<: {a: 1}", "f:1:1 document: merge keys (<<) are not allowed"),
        ("1: 2", "f:1:1 document: keys must be text, not 1"),
        ("a:\n  ? [1]\n  : 2", "f:2:5 a: keys must be text"),
        ("a: 1\n---\nb: 1", "f:2:1 document: a second document begins here; one file holds one"),
        ("%YAML 1.1\n---\na: 1", "f:2:1 document: directives are not allowed"),
        ("a:\n\t- 1", "f:2:1 document: found character '\\t' that cannot start any token"),
        ("a: [1, 2", "f:1:9 document: expected ',' or ']', but got '<stream end>'"),
        ("a: 'x", "f:1:6 document: found unexpected end of stream"),
        ("", "f:1:1 document: is empty"),
        ("# nothing\n", "f:1:1 document: is empty"),
        ("- 1", "f:1:1 document: must be a mapping of keys to values, not a list"),
        ("hello", "f:1:1 document: must be a mapping of keys to values, not 'hello'"),
        ("a: 1\nb: \x1b[31m", "f:2:4 document: character U+001B is not allowed"),
        ('a: "\\0"', "f:1:4 a: character U+0000 is not allowed"),
        ('a: "\\ud800"', "f:1:4 a: character U+D800 is not allowed"),
        ("a: " + "[" * 20 + "]" * 20, "f:1:23 a[0][0]: nested deeper than 20 levels"),
        ("a: [" + "1," * 20_001 + "]", "f:1:39999 document: more than 20,000 entries"),
    ],
)  # fmt: skip
def test_what_is_refused_and_where(text: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(text, "f")
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


def test_all_problems_of_a_text_are_told_at_once() -> None:
    with pytest.raises(DocumentError) as caught:
        parse("a: &x .nan\na: *x\n2: !t 1\n", "f")
    assert [(each.line, each.column, each.what.split()[0]) for each in caught.value.problems] == [
        (1, 4, "anchors"), (1, 4, "NaN"), (2, 1, "is"), (2, 4, "aliases"), (3, 1, "keys"), (3, 4, "tags")
    ]  # fmt: skip


def test_nesting_up_to_the_limit_is_fine() -> None:
    parse("a: " + "[" * 19 + "1" + "]" * 19, "f")


def test_positions_are_those_of_the_key_or_the_nearest_parent() -> None:
    document = parse("a: 1\nsteps:\n  - use: x\n    block: 2\n  - {use: y, list: [7, 8]}\n", "f")
    assert document.position(("a",)) == (1, 1)
    assert document.position(("steps", 0, "block")) == (4, 5)
    assert document.position(("steps", 1)) == (5, 5)
    assert document.position(("steps", 1, "list", 1)) == (5, 24)
    assert document.position(("steps", 1, "absent", 3)) == (5, 5)
    assert document.position(("absent",)) == (1, 1)


def test_the_digest_is_that_of_the_data() -> None:
    one, other = parse("b: 1\na: [x, 2.0]  # why\n", "f"), parse('{"a": ["x", 2], "b": 1}', "g")
    assert one.digest == other.digest == hashlib.sha256(b'{"a":["x",2],"b":1}').hexdigest()


def test_reading_files(tmp_path: Path) -> None:
    good = tmp_path / "policy.yaml"
    good.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\r\nb: |\r\n  x\r\n  y\r\n")
    assert read(good).data == {"a": "é", "b": "x\ny\n"}
    with pytest.raises(UsageError, match=r"(?s)No such file.*did you mean policy.yaml"):
        read(tmp_path / "polcy.yaml")
    for odd in (tmp_path, tmp_path / ("x" * 5000), Path("a\0b")):
        with pytest.raises(UsageError):
            read(odd)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(DocumentError, match=r"latin.yaml:2:7 document: is not UTF-8 text"):
        read(tmp_path / "latin.yaml")


class Inner(Strict):
    ratio: Fraction = 0.5
    count: PositiveInt = 1


class Outer(Strict):
    name: Name
    weight: Number = 0.0
    flag: bool = False
    bits: Literal[4, 8] = 4
    kind: Literal["reading", "charts"] = "reading"
    pair: tuple[int, int] = (1, 2)
    some: tuple[Inner, ...] = Field((), max_length=2)
    either: Number | Literal["auto"] = "auto"
    table: dict[Name, Inner] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _seen(cls, data: Any) -> Any:
        return data


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("weight: true", "f:2:1 weight: must be a number, not true"),
        ('weight: "0.5"', "f:2:1 weight: must be a number, not '0.5'"),
        ("weight:", "f:2:1 weight: must be a number, not null"),
        ("flag: yes", "f:2:1 flag: must be true or false, not 'yes'"),
        ("flag: 1", "f:2:1 flag: must be true or false, not 1"),
        ("bits: 3", "f:2:1 bits: must be 4 or 8, not 3"),
        ("kind: readin", "f:2:1 kind: must be 'reading' or 'charts', not 'readin' (did you mean reading)"),
        ("wieght: 1", "f:2:1 wieght: no such key (did you mean weight)"),
        ("pair: [1, 2, 3]", "f:2:1 pair: must have at most 2 entries, not 3"),
        ("pair: 1", "f:2:1 pair: must be a list, not 1"),
        ("some: [{ratio: 1.5}]", "f:2:9 some[0].ratio: must be at most 1.0, not 1.5"),
        ("some: [{ratio: true}]", "f:2:9 some[0].ratio: must be a number, not true"),
        ("some: [{count: 0}]", "f:2:9 some[0].count: must be at least 1, not 0"),
        ("some: [{count: 1.0}]", "f:2:9 some[0].count: must be a whole number, not 1.0"),
        ("some: [{}, {rato: 1}]", "f:2:13 some[1].rato: no such key (did you mean ratio)"),
        ("some: [[1]]", "f:2:8 some[0]: must be a mapping, not a list"),
        ("either: often", "f:2:1 either: must be a number or 'auto', not 'often'"),
        ("table: {x: {count: -1}}", "f:2:13 table.x.count: must be at least 1, not -1"),
        ("table: {a/b: {}}", "f:2:9 table['a/b']: must be a name: 1 to 64 of a-z 0-9 _ . - that start with a letter "
         "or digit, without '..'"),
    ],
)  # fmt: skip
def test_decoding_tells_where_what_and_what_is_allowed(line: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        decode(parse(f"name: x\n{line}\n", "f"), Outer)
    assert str(caught.value) == message


def test_decoding_takes_whole_numbers_for_numbers_and_lists_for_tuples() -> None:
    made = decode(parse("name: x\nweight: 1\nsome: [{ratio: 1}, {ratio: 1e-3}]\npair: [3, 4]\n", "f"), Outer)
    assert (made.weight, made.pair, made.some) == (1.0, (3, 4), (Inner(ratio=1.0), Inner(ratio=0.001)))
    assert type(made.weight) is float


def test_decoding_a_part_keeps_its_place() -> None:
    document = parse("a:\n  - name: X\n    some: [{count: x}]\n", "f")
    with pytest.raises(DocumentError) as caught:
        decode(document, Outer, ("a", 0))
    assert [(each.line, each.column, each.path) for each in caught.value.problems] == [
        (2, 5, "a[0].name"),
        (3, 13, "a[0].some[0].count"),
    ]
    with pytest.raises(DocumentError, match=r"f:1:1 a\[7\]: is required"):
        decode(document, Outer, ("a", 7))


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc", "a..b", ".a", "", "A", "a\n", "x" * 65, "a b", "é", "~"])
def test_names_are_never_paths(name: str) -> None:
    with pytest.raises(ValueError, match="must be a name"):
        Outer(name=name)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Z")), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@settings(deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1), json_like, max_size=4))
def test_json_is_read_as_it_is(data: dict[str, Any]) -> None:
    import json

    assert parse(json.dumps(data), "f").data == data


@settings(deadline=None)
@given(st.text(st.sampled_from("ab:-[]{},&*!|>'\"%@`#?\n\t \\~<=1.e\x00\ud800\u2028\ufeff"), max_size=40))
def test_any_text_is_read_or_refused_with_a_position(text: str) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        assert parse(text, "f").digest
    except DocumentError as error:
        problems = error.problems
    assert all(each.line >= 1 and each.column >= 1 and each.path for each in problems)
