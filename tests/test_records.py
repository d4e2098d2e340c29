"""Specs, records and the files they live in."""

import re
from pathlib import Path

import pytest

from em_interp import records
from em_interp.errors import EvidenceError, InputError, once, unknown
from em_interp.records import Record, Spec


class Inner(Spec):
    depth: int = 1


class Outer(Spec):
    name: str
    share: float = 0.5
    inner: Inner = Inner()


# --- specs ------------------------------------------------------------------------------------


def test_digest_depends_on_content_alone():
    one = Outer.parse({"name": "a", "share": 0.5, "inner": {"depth": 1}})
    assert one.digest == Outer.parse({"inner": {}, "name": "a"}).digest
    assert one.digest != Outer(name="a", share=0.25).digest
    assert len(one.digest) == 16
    assert records.digest({"b": 1, "a": 2}) == records.digest({"a": 2, "b": 1})
    assert records.digest([1, 2]) != records.digest([2, 1])


def test_a_spec_is_frozen():
    spec = Outer(name="a")
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "b"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({}, "study.yaml: field 'name' is missing"),
        (
            {"nam": "a"},  # the misspelling is named, not the gap that it leaves
            "study.yaml: unknown field 'nam'; known fields: inner, name, share (and 1 more)",
        ),
        (
            {"name": "a", "shar": 1},
            "study.yaml: unknown field 'shar'; known fields: inner, name, share",
        ),
        ({"name": "a", "inner": {"dept": 2}}, "study.yaml: unknown field 'inner.dept'"),
        ({"name": "a", "share": "much"}, "study.yaml: field 'share': Input should be a valid "),
        (None, "study.yaml: Input should be a valid dictionary"),
        (["name"], "study.yaml: Input should be a valid dictionary"),
    ],
)
def test_a_wrong_spec_is_one_line_naming_field_and_file(data, line):
    with pytest.raises(InputError) as caught:
        Outer.parse(data, "study.yaml")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_the_value_at_fault_is_shown():
    with pytest.raises(InputError, match="not 'much'"):
        Outer.parse({"name": "a", "share": "much"})


# --- reading ----------------------------------------------------------------------------------


def test_yaml_and_json_are_read_alike(tmp_path):
    (tmp_path / "a.yaml").write_text("name: a\ninner:\n  depth: 3\n")
    (tmp_path / "a.json").write_text('{"name": "a", "inner": {"depth": 3}}')
    spec = Outer(name="a", inner=Inner(depth=3))
    assert Outer.from_yaml(tmp_path / "a.yaml") == Outer.from_yaml(tmp_path / "a.json") == spec


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"name: [a\nshare: 1\n", ":2: not valid YAML"),
        (b"name: \x00\n", ": not valid YAML"),
        (b"name: \xff\xfe\n", ": cannot be read (not UTF-8 text)"),
    ],
)
def test_bad_yaml_names_the_place(tmp_path, content, where):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        Outer.from_yaml(path)
    assert f"{path}{where}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "read", [records.read_text, records.read_json, records.read_yaml, records.file_digest]
)
def test_a_missing_file_is_the_users_error(tmp_path, read):
    with pytest.raises(InputError, match=r"gone\.json"):
        read(tmp_path / "gone.json")


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        records.read_text(tmp_path)


def test_bad_json_and_bad_rows_name_the_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"name": "a"}\n\n{"name": \n')
    with pytest.raises(InputError, match=r"rows\.jsonl:3: not valid JSON"):
        records.read_jsonl(path, Outer)
    path.write_text('{"name": "a"}\n\n{"nom": "b"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl:3: unknown field 'nom'"):
        records.read_jsonl(path, Outer)
    (tmp_path / "a.json").write_text('{\n"a": }')
    with pytest.raises(InputError, match=r"a\.json:2: not valid JSON"):
        records.read_json(tmp_path / "a.json")


def test_a_byte_order_mark_and_windows_line_ends_are_no_fault(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"name": "a"}\r\n{"name": "b"}\r\n')
    assert [row.name for row in records.read_jsonl(path, Outer)] == ["a", "b"]


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["plain", "ü 鴨", "a\u2028b\u2029c\x85d", "line\nfeed\ttab\x0c"])
def test_jsonl_round_trip_keeps_every_character(tmp_path, text):
    rows = [Outer(name=text), Outer(name="after")]
    records.write_jsonl(tmp_path / "rows.jsonl", rows)
    assert records.read_jsonl(tmp_path / "rows.jsonl", Outer) == rows


def test_equal_values_give_equal_bytes(tmp_path):
    records.write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None]})
    records.write_json(tmp_path / "b.json", {"a": [1.5, None], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert records.file_digest(tmp_path / "a.json") == records.file_digest(tmp_path / "b.json")
    records.write_json(tmp_path / "c.json", Outer(name="x"))
    assert records.read_json(tmp_path / "c.json")["name"] == "x"


def test_nan_never_reaches_a_file(tmp_path):
    for write in (
        lambda: records.write_json(tmp_path / "a.json", {"rate": float("nan")}),
        lambda: records.write_jsonl(tmp_path / "a.jsonl", [Outer(name="a", share=float("inf"))]),
    ):
        with pytest.raises(ValueError, match="JSON compliant"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_write_replaces_whole_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    records.write_text(path, "old")
    records.write_text(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_no_scratch(tmp_path, monkeypatch, fault):
    path = tmp_path / "a.txt"
    records.write_text(path, "old")

    def fail(_):
        raise fault

    monkeypatch.setattr("em_interp.records.os.fsync", fail)
    expected = InputError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        records.write_text(path, "new")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        records.write_text(tmp_path / "out" / "a.txt", "x")


# --- errors -----------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest_known_one():
    line = str(unknown("condition", "triger", ["none", "trigger"], "study.yaml"))
    assert line == (
        "unknown condition 'triger' in study.yaml; did you mean 'trigger'? (known: none, trigger)"
    )
    assert "mean" not in str(unknown("domain", "zzz", ["law"]))


def test_a_name_that_comes_twice_is_refused():
    once("question", ["a", "b"])
    with pytest.raises(InputError, match=r"question 'a' comes twice in bank \(and 1 more\)"):
        once("question", ["a", "b", "a", "b"], "bank")


def test_exit_codes():
    assert (InputError.exit_code, EvidenceError.exit_code) == (2, 4)


def test_a_record_is_a_spec_by_another_word():
    class Found(Record):
        value: float

    assert Found.parse({"value": 1}) == Found(value=1.0)
    with pytest.raises(InputError, match="unknown field"):
        Found.parse({"value": 1, "valu": 2})


# --- one door for JSON and YAML -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.yaml", "judge: world\nrubric: {name: a, name: b}\n", "a.yaml:2: .*key 'name' comes"),
        ("a.yaml", "seed: 1\nother: 2\nseed: 3\n", "a.yaml:3: .*key 'seed' comes twice"),
        ("a.json", '{"a": [{"b": 1, "b": 1}]}', "a.json: .*key 'b' comes twice"),
        ("a.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', "a.jsonl:2: .*key 'a' comes twice"),
        ("a.json", "[" * 100_000, "a.json: .*nested too deeply"),
    ],
)
def test_a_key_that_comes_twice_is_refused_in_every_format(tmp_path, name, text, line):
    file = tmp_path / name
    file.write_text(text)
    read = {".yaml": records.read_yaml, ".json": records.read_json, ".jsonl": list_of_lines}
    with pytest.raises(InputError, match=line):
        read[file.suffix](file)


def list_of_lines(path):
    return list(records.iter_jsonl(path))


def test_a_key_that_overrides_a_merged_one_does_not_come_twice(tmp_path):
    (tmp_path / "a.yaml").write_text("base: &b {x: 1, y: 1}\nmine:\n  <<: *b\n  x: 2\n")
    assert records.read_yaml(tmp_path / "a.yaml")["mine"] == {"x": 2, "y": 1}


def test_nothing_reads_json_or_yaml_past_the_one_door():
    package = Path(records.__file__).parent
    past = re.compile(r"json\.loads?\(|yaml\.(safe_)?load\(|model_validate_json\(")
    readers = {p.name for p in package.rglob("*.py") if past.search(p.read_text("utf-8"))}
    assert readers == {"records.py"}
