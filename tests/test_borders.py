"""A library's exception at a border is one line that names the file; every border has its door."""

import ast
import os
from pathlib import Path

import pytest

from em_interp import adopt, sources
from em_interp.artifacts import columns_of
from em_interp.errors import InputError, cause, reading
from em_interp.exchange import file_format
from em_interp.models.fingerprints import checkpoint_fingerprint
from em_interp.records import file_digest, read_json, read_text, read_yaml

PACKAGE = Path(sources.__file__).parent
LIBRARIES = {  # calls that hand the bytes of a file, or a name of somebody else's, to a library
    "safe_load", "safe_open", "load_file", "from_pretrained", "load_from_disk", "GGUFReader",
    "read_text", "read_bytes", "model_validate_json", "snapshot_download",
    "parse_json", "json.loads", "json.load", "torch.load", "yaml.load",
}  # fmt: skip
# Where bytes come in that are no file's; each has a door of its own, for the reason given.
OTHERS = {
    "records.py": "parse_json itself, of which every call is looked for",
    "endpoints/replies.py": "a server's body: a GarbledError is asked again",
    "judges/reading.py": "a judge's text: what is no JSON is unparsed",
    "judges/api.py": "the cache's own form",
    "judges/cache.py": "the cache's own rows",
    "exchange/gguf.py": "its own scratch file, on the way out",
}


def named(call: ast.Call) -> str | None:
    """The call's name where it is one of the libraries' readers, with its module where needed."""
    at = call.func
    if isinstance(at, ast.Name):  # `read_text` alone is our own, of records: a door itself
        return at.id if at.id in LIBRARIES - {"read_text"} else None
    if not isinstance(at, ast.Attribute):
        return None
    if at.attr in LIBRARIES:
        return at.attr
    whole = f"{at.value.id}.{at.attr}" if isinstance(at.value, ast.Name) else ""
    return whole if whole in LIBRARIES else None


def outside(tree: ast.AST) -> list[str]:
    """Readers' calls that no `with reading(...)` stands around: "name:line"."""
    found: list[str] = []

    def walk(node: ast.AST, open_door: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            open_door = False  # it runs later, when the door is shut again
        if isinstance(node, ast.Call) and not open_door and (name := named(node)):
            found.append(f"{name}:{node.lineno}")
        if isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:  # in order: what follows the door in one `with` is behind it
                walk(item.context_expr, open_door)
                made = item.context_expr
                open_door |= (
                    isinstance(made, ast.Call)
                    and isinstance(made.func, ast.Name)
                    and made.func.id == "reading"
                )
            for inner in node.body:
                walk(inner, open_door)
            return
        for inner in ast.iter_child_nodes(node):
            walk(inner, open_door)

    walk(tree, False)
    return found


def test_every_reader_of_the_package_stands_under_the_door():
    bare = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if (found := outside(ast.parse(path.read_text("utf-8")))) and name not in OTHERS:
            bare |= {name: found} if found else {}
    assert bare == {}


def test_a_reader_outside_the_door_is_seen():
    text = "with reading(p), open(p) as f:\n    json.loads(f.read())\njson.loads(x)\n"
    assert outside(ast.parse(text)) == ["json.loads:3"]
    assert outside(ast.parse("with reading(p):\n    def late(): yaml.safe_load(p)\n")) != []
    assert outside(ast.parse("with safe_open(p) as f, reading(p): pass")) == ["safe_open:1"]


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (RecursionError("maximum recursion depth"), "nested too deeply"),
        (MemoryError(), "more memory than there is"),
        (KeyError("dtype"), "KeyError: 'dtype'"),
        (AssertionError(), "AssertionError"),
        (Exception("first\nsecond"), "first"),
        (ValueError("a\x1b[31mred\u202e"), r"a\\x1b\[31mred\\u202e"),
        (ValueError("x" * 10_000), "x…"),
        (OSError(36, "File name too long"), "File name too long"),
        (type("PanicException", (BaseException,), {})("index out of bounds"), "out of bounds"),
    ],
)
def test_whatever_a_library_raises_is_one_line_with_the_file(raised, told):
    with pytest.raises(InputError, match=told) as caught, reading("base gone", "is broken"):
        raise raised
    line = str(caught.value)
    assert line.startswith("base gone: is broken (")
    assert line.isprintable()
    assert len(line) < 350
    assert caught.value.__suppress_context__


def test_the_door_lets_pass_what_is_no_fault_of_the_file():
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind), reading("x"):
            raise kind
    with pytest.raises(MemoryError), reading("x", passing=(MemoryError,)):
        raise MemoryError
    with pytest.raises(InputError, match=r"^its own words$"), reading("x"):
        raise InputError("its own words")
    assert cause(FileNotFoundError(2, "No such file or directory", "b")).endswith("directory: b")


# --- readers, each given each kind of what is not its file --------------------------------------


def a_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def holding(data: bytes):
    def make(path: Path) -> Path:
        path.write_bytes(data)
        return path

    return make


def a_loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def a_folder(path: Path) -> Path:
    path.mkdir()
    return path


DEEP = 100_000
BAD = {
    "missing": lambda path: path,
    "a folder": a_folder,
    "a pipe": a_pipe,
    "a device": lambda path: Path("/dev/zero"),
    "a link to itself": a_loop,
    "a name too long": lambda path: path.with_name("n" * 300 + path.suffix),
    "a null in the name": lambda path: path.with_name("n\0" + path.suffix),
    "a picture": holding(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))),
    "a header of 2^62 bytes": holding((1 << 62).to_bytes(8, "little") + b"{}"),
    "UTF-16": holding('{"a": 1}'.encode("utf-16")),
    "nested too deeply": holding(b"[" * DEEP + b"]" * DEEP),
    "an integer of 5000 digits": holding(b"9" * 5000),
}
READERS = {
    "read_text": read_text,
    "read_json": read_json,
    "read_yaml": read_yaml,
    "questions": lambda path: sources.questions(str(path)),
    "trigger": lambda path: sources.trigger(f"{path}"),
    "digest": file_digest,
    "columns": lambda path: columns_of(path, {"x": 2}, 1),
    "vector.gguf": lambda path: file_format(path).read(path),
    "vector.pt": lambda path: file_format(path).read(path),
    "vector.safetensors": lambda path: file_format(path).read(path),
    "fingerprint": lambda path: checkpoint_fingerprint([path], False, ["x"]),
}
RIGHT = {  # what is no fault: any bytes have a digest, and text is text
    *(("digest", kind) for kind, make in BAD.items() if "holding" in make.__qualname__),
    ("read_text", "nested too deeply"),
    ("read_text", "an integer of 5000 digits"),
    ("read_text", "a header of 2^62 bytes"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_such_file_is_one_line_that_names_it(reader, kind, tmp_path):
    if (reader, kind) in RIGHT:
        return
    suffix = Path(reader).suffix or (".yaml" if reader in ("read_yaml", "trigger") else ".json")
    path = BAD[kind](tmp_path / f"given{suffix}")
    if kind == "a device" and reader in ("trigger", "vector.gguf", "vector.pt"):
        path = tmp_path / f"zero{suffix}"
        path.symlink_to("/dev/zero")
    with pytest.raises(InputError) as caught:
        READERS[reader](path)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 1000
    assert Path(str(path)).stem[:50] in line or "\0" in str(path)


def test_yaml_nested_too_deeply_is_refused_at_once(tmp_path, monkeypatch):
    """PyYAML takes the square of the depth, which no limit of Python's stack cuts short."""
    monkeypatch.setattr("yaml.load", None)  # not even asked
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 1001)
    with pytest.raises(InputError, match=r"deep.yaml: not valid YAML \(nested too deeply\)"):
        read_yaml(tmp_path / "deep.yaml")


def test_a_flag_that_names_no_path_at_all_is_one_line(capsys):
    for flag in (["--file", "n" * 300 + ".gguf"], ["--file", "x.gguf", "--out", "n" * 300]):
        assert adopt.main([*flag, *(() if "--out" in flag else ("--out", "made"))]) == 2
        assert capsys.readouterr().err.count("\n") == 1
