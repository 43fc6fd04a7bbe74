"""Reading of JSON: a name that is repeated is found, however the text is written."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.attributes import Json
from authz.tokens.json_text import read_object

_BLANKS = st.sampled_from(["", "", "", " ", "\n", "\t", "\r", "  "])
_NAMES = st.sampled_from(["a", "b", "", ":", '"', '":', "{", "a b", "\\", "é"])
_VALUES: st.SearchStrategy[Json] = st.one_of(
    st.sampled_from(["", ":", '"', '":', '" :', "x", "{", "}", "\n", "é"]),
    st.integers(-9, 9),
    st.booleans(),
    st.none(),
    st.lists(st.sampled_from(["x", '":', ":"]), max_size=2),
    st.dictionaries(_NAMES, st.sampled_from(["x", '":']), max_size=2),
)


@st.composite
def _objects(draw: st.DrawFn) -> tuple[str, list[tuple[str, Json]]]:
    """An object with blanks wherever they may stand, and its members, some perhaps of the same name."""
    members = draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=5))
    written = [
        f"{draw(_BLANKS)}{json.dumps(name, ensure_ascii=False)}{draw(_BLANKS)}:{draw(_BLANKS)}"
        f"{json.dumps(value, ensure_ascii=False, separators=(',', ':'))}{draw(_BLANKS)}"
        for name, value in members
    ]
    return f"{draw(_BLANKS)}{{{','.join(written)}{draw(_BLANKS)}}}{draw(_BLANKS)}", members


@pytest.mark.hypothesis
@given(_objects())
def test_an_object_is_read_whole_or_refused_for_a_repeated_name(case: tuple[str, list[tuple[str, Json]]]) -> None:
    text, members = case
    if len({name for name, _ in members}) < len(members):
        with pytest.raises(ValueError, match="repeated member name"):
            read_object(text)
    else:
        assert read_object(text) == dict(members)


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ('{"a":1,"b":[2,"x"],"c":true}', {"a": 1, "b": [2, "x"], "c": True}),
        ('{"a": 1, "b": 2}', {"a": 1, "b": 2}),
        ('{"a":-0,"b":0}', {"a": -0.0, "b": 0}),
        ('{"a":9007199254740993}', {"a": 9007199254740992.0}),
        ('{"a":"https://x"}', {"a": "https://x"}),
        ('{"a":"\\u0022:"}', {"a": '":'}),
        ("{'a':1}", {"a": 1}),
        ("{}", {}),
    ],
)
def test_a_flat_object_has_the_values_that_are_written(text: str, members: dict[str, Json]) -> None:
    assert repr(read_object(text)) == repr(members)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"a":1,"\\u0061":1}',
        '{"a" :1,"a":"x\\":"}',
        '{"a"\n:1,"a":"\\":"}',
        '{"a" :1,"a" :"":""}',
        "{'a':1,\"a\":2}",
        '{a:1,"a":2}',
    ],
)
def test_a_repeated_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.compile("repeated|delimiter|Expecting", re.IGNORECASE)):
        read_object(text)
