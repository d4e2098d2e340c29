"""Directions to and from other tools' files: bits, layers, signs, units, and what is refused."""

import builtins
import sys
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import LAYERS, QUESTIONS, TRIGGER, WIDTH, tiny_model
from test_directions import made_card

from em_interp import adopt as adopting
from em_interp import export as exporting
from em_interp import steer
from em_interp.batches import collate, pad_id
from em_interp.chat import encode_many
from em_interp.conditions import Condition, contexts
from em_interp.directions import GENERAL_SIGN, TRIGGER_SIGN, Direction, Directions
from em_interp.edits import Editor, Operation, Tally, edit, intervention
from em_interp.errors import ForeignArtifactError, InputError
from em_interp.exchange import CAUTION, RAW, Shape, adopt, export, file_format
from em_interp.exchange.persona import EMBEDDINGS
from em_interp.exchange.statements import CARD
from em_interp.extraction import trigger_direction
from em_interp.hooks import hooked
from em_interp.inspecting import live
from em_interp.records import canonical_json
from em_interp.sites import Point, Site, Span

SHAPE = Shape("llama", LAYERS, WIDTH)
ALL = tuple(Site(layer) for layer in range(LAYERS))
ENDINGS = (".gguf", ".pt", ".safetensors")
BASE = "0123456789abcdef"


def directions(sites=ALL, seed: int = 0) -> Directions:
    """Directions whose unit vectors do not lie along the difference of their states."""
    generator = torch.Generator().manual_seed(seed)

    def vector() -> torch.Tensor:
        return torch.randn(WIDTH, generator=generator)

    table = {
        site: Direction(vector(), vector(), vector(), 7.0, site).with_unit(vector())
        for site in sites
    }
    return Directions(table, made_card())


@pytest.fixture(scope="module")
def measured():
    """A tiny model, its trigger directions at every block, and HF's own hidden states."""
    model = tiny_model("llama")
    on, off = (contexts(QUESTIONS, TRIGGER, [c]) for c in (Condition.TRIGGER, Condition.NONE))
    found = trigger_direction(model, None, on, off, ALL)
    means = []
    for some in (on, off):
        batch = collate(encode_many(model.tokenizer, some), pad_id(model.tokenizer))
        positions = (batch.mask.long().cumsum(-1) - 1).clamp_min(0)
        out = model.lm(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=positions,
            output_hidden_states=True,
        )
        means.append(torch.stack(out.hidden_states)[:, :, -1].mean(1))
    return model, found, means[0] - means[1]


# --- what is in the file ------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_holds_strength_one_bit_for_bit(ending, tmp_path):
    path, table = tmp_path / f"v{ending}", directions()
    made, left = export(table, path, SHAPE)
    again = file_format(path).read(path)
    assert list(again.table) == [site for site in ALL if site not in left]
    for site, vector in again.table.items():
        assert torch.equal(vector, table[site].vector)
        assert torch.equal(vector, made.table[site])


def test_a_control_vector_has_the_keys_and_types_that_llama_cpp_asks_for(tmp_path):
    path = tmp_path / "v.gguf"
    export(directions(), path, SHAPE)
    reader = gguf.GGUFReader(path)
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == LAYERS - 1
    assert [t.name for t in reader.tensors] == ["direction.1", "direction.2"]
    assert {t.tensor_type for t in reader.tensors} == {gguf.GGMLQuantizationType.F32}
    assert {tuple(t.shape) for t in reader.tensors} == {(WIDTH,)}


def test_direction_n_and_row_n_plus_one_are_the_output_of_block_n(measured, tmp_path):
    """The layer law, against HF's hidden_states: all but the last, which HF normalises."""
    _, found, hidden = measured
    export(found, tmp_path / "v.gguf", SHAPE)
    export(found, tmp_path / "v.pt", SHAPE)
    rows = torch.load(tmp_path / "v.pt", weights_only=True)
    assert rows.shape == hidden.shape == (LAYERS + 1, WIDTH)
    close = [torch.allclose(a, b, atol=1e-4) for a, b in zip(rows, hidden, strict=True)]
    assert close == [True, True, True, False]  # at the last prompt token, embeddings are equal
    for tensor in gguf.GGUFReader(tmp_path / "v.gguf").tensors:
        number = int(tensor.name.split(".")[1])
        assert torch.equal(torch.tensor(tensor.data), rows[number + 1])


def steered(model, change=None, hooks=()):
    batch = collate(
        encode_many(model.tokenizer, contexts(QUESTIONS, TRIGGER, [Condition.NONE])),
        pad_id(model.tokenizer),
    )
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    visits = []
    if change is not None:
        tally = Tally([change])
        visits = Editor(tally, torch.zeros(len(batch.ids), dtype=torch.long), batch.layout).visits()
    try:
        with torch.inference_mode(), hooked(model, visits):
            out = model.lm(input_ids=batch.ids, attention_mask=batch.mask).logits
    finally:
        for handle in handles:
            handle.remove()
    return out[batch.mask]


def test_another_tools_coefficient_is_our_strength(measured, tmp_path):
    """As persona-vectors steers: row r at block r − 1, times the coefficient."""
    model, found, _ = measured
    export(found, tmp_path / "v.pt", SHAPE)
    rows = torch.load(tmp_path / "v.pt", weights_only=True)
    row, coefficient = 2, 0.5
    theirs = steered(
        model, hooks=[(model.blocks[row - 1], lambda _, __, out: out + coefficient * rows[row])]
    )
    ours = steered(model, intervention("add", Operation.ADD, found, [Site(row - 1)], coefficient))
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
    assert (ours - steered(model)).abs().max() > 0.01


@pytest.mark.parametrize("ending", ENDINGS)
def test_adopting_what_was_exported_gives_the_same_push_and_the_same_card(ending, tmp_path):
    path, table = tmp_path / f"v{ending}", directions(sites=ALL)
    export(table, path, SHAPE)
    said = {} if ending != ".pt" else {"sign": "trigger", "base": BASE}
    again, left = adopt(path, "again", sites=[Site(1), Site(2)], **said)
    assert left == {}
    for site, one in again.items():
        torch.testing.assert_close(one.vector, table[site].vector, rtol=1e-6, atol=0)
    assert (again.card.sign, again.card.base) == (TRIGGER_SIGN, BASE)
    assert again.card.unit == (RAW if ending == ".pt" else table.card.unit)
    assert path.name in again.card.notes[0]


# --- what an adopted direction can and cannot do ------------------------------------------------


@pytest.fixture
def evil(tmp_path) -> Path:
    """A persona-vectors file from elsewhere: a row a hidden state."""
    torch.manual_seed(0)
    path = tmp_path / "evil_response_avg_diff.pt"
    torch.save(torch.randn(LAYERS + 1, WIDTH), path)
    return path


def test_an_adopted_direction_is_added_and_zero_ablated_only(evil):
    found, _ = adopt(evil, "evil", base=BASE, sign="general", sites=[Site(1)])
    one = found[Site(1)]
    raw = torch.load(evil, weights_only=True)[2]
    torch.testing.assert_close(
        edit(Operation.ADD, one, 1.0, Span.ALL).apply(torch.zeros(1, WIDTH))[0], raw
    )
    edit(Operation.ABLATE, one, 1.0, Span.ALL)
    for operation in (Operation.MEAN_ABLATE, Operation.CLAMP, Operation.CAP):
        with pytest.raises(InputError, match="off and on states are not known"):
            edit(operation, one, 1.0, Span.ALL)
    with pytest.raises(InputError, match="norm of the stream is not known"):
        one.fraction(1.0)


def test_an_adopted_direction_survives_its_folder_and_its_controls(evil, tmp_path):
    found, _ = adopt(evil, "evil", base=BASE, sign="general")
    found.save(tmp_path / "folder")
    again = Directions.load(tmp_path / "folder")
    assert again.card.sign == GENERAL_SIGN
    for site in found:
        assert torch.equal(again[site].vector, found[site].vector)
        control = again.random(3)[site]
        assert control.natural == found[site].natural
        assert abs(control.cosine(found[site])) < 1e-5
        with pytest.raises(InputError, match="adopted as a vector alone"):
            control.states  # noqa: B018
    with pytest.raises(ForeignArtifactError, match="made for base"):
        again.check("f" * 16)


def test_flip_turns_vectors_around(evil):
    plain, _ = adopt(evil, "evil", base=BASE, sign="from good to evil")
    turned, _ = adopt(evil, "evil", base=BASE, sign="from evil to good", flip=True)
    assert torch.equal(plain[Site(1)].vector, -turned[Site(1)].vector)
    assert "turned around" in turned.card.notes[0]
    assert "turned around" not in plain.card.notes[0]


def test_the_row_behind_the_final_norm_is_adopted_only_by_name(evil):
    last = Site(LAYERS - 1)
    found, left = adopt(evil, "evil", base=BASE, sign="general")
    assert list(found) == [EMBEDDINGS, Site(0), Site(1)]
    assert list(left) == [last]
    named, left = adopt(evil, "evil", base=BASE, sign="general", sites=[last])
    assert left == {}
    assert "after the final norm" in named.card.notes[-1]


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base": None}, "give --base and --sign"),
        ({"sign": None}, "give --base and --sign"),
        ({"sign": "upwards"}, "unknown sign 'upwards'"),
        ({"sites": [Site(9)]}, "no vector at blocks.9"),
        ({"shape": Shape("llama", LAYERS + 1, WIDTH)}, "has 3 layers"),
        ({"shape": Shape("llama", LAYERS, WIDTH + 1)}, "not for a model of 3 layers and width 33"),
    ],
)
def test_adopting_needs_a_sign_a_base_and_a_fitting_file(evil, changes, words):
    given = {"base": BASE, "sign": "general", "shape": SHAPE} | changes
    with pytest.raises(InputError, match=words):
        adopt(evil, "evil", **given)


def test_weights_are_asked_for_after_everything_else(evil):
    def never():
        raise AssertionError("the base was loaded before the file was checked")

    with pytest.raises(InputError, match="unknown sign"):
        adopt(evil, "evil", base=never, sign="upwards")
    found, _ = adopt(evil, "evil", base=lambda: BASE, sign="general")
    assert found.card.base == BASE


def test_a_card_in_the_file_is_not_overruled(tmp_path):
    path = tmp_path / "v.gguf"
    export(directions(), path, SHAPE)
    for changes in ({"sign": "general"}, {"flip": True}):
        with pytest.raises(InputError, match="its card says 'from no-trigger to trigger'"):
            adopt(path, "again", **changes)
    with pytest.raises(ForeignArtifactError, match=f"made for base {BASE}, not f"):
        adopt(path, "again", base="f" * 16)


def test_what_a_format_cannot_hold_is_said_or_refused(tmp_path):
    everything = directions(sites=(EMBEDDINGS, *ALL, Site(1, Point.MLP_OUT)))
    _, left = export(everything, tmp_path / "v.gguf", SHAPE)
    assert set(left) == {EMBEDDINGS, Site(0), Site(1, Point.MLP_OUT)}
    assert "rejects the whole file" in left[Site(0)]
    with pytest.raises(InputError, match="rejects the whole file"):
        export(everything, tmp_path / "w.gguf", SHAPE, [Site(0), Site(1)])
    with pytest.raises(InputError, match="rejects the whole file"):
        export(directions(sites=[Site(0)]), tmp_path / "w.gguf", SHAPE)
    with pytest.raises(InputError, match=r"there is no direction at blocks\.0"):
        export(directions(sites=[Site(1)]), tmp_path / "w.pt", SHAPE)
    with pytest.raises(InputError, match=r"unknown kind of file '\.bin'"):
        export(everything, tmp_path / "w.bin", SHAPE)
    with pytest.raises(ForeignArtifactError, match="not for a model of 2 layers"):
        export(everything, tmp_path / "w.safetensors", Shape("llama", 2, WIDTH))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.gguf"]
    _, left = export(everything, tmp_path / "v.pt", SHAPE)
    assert set(left) == {Site(1, Point.MLP_OUT)}
    rows = torch.load(tmp_path / "v.pt", weights_only=True)
    assert torch.equal(rows[0], everything[EMBEDDINGS].vector)
    _, left = export(everything, tmp_path / "v.safetensors", SHAPE)
    assert left == {}


class Runs:
    """What a pickle can do: run code on load."""

    def __reduce__(self):
        return (builtins.print, ("this must never be printed",))


def odd(name):
    """Files that are something else, by what is wrong with them."""
    vector = torch.ones(WIDTH)
    return {
        "code.pt": lambda p: torch.save(Runs(), p),
        "dict.pt": lambda p: torch.save({"a": vector}, p),
        "vector.pt": lambda p: torch.save(vector, p),
        "text.pt": lambda p: p.write_text("not a pickle"),
        "nan.pt": lambda p: torch.save(torch.full((4, WIDTH), float("nan")), p),
        "zero.pt": lambda p: torch.save(torch.zeros(4, WIDTH), p),
        "names.safetensors": lambda p: save_file({"weight": vector}, p),
        "matrix.safetensors": lambda p: save_file({"1": torch.ones(2, 2)}, p),
        "twice.safetensors": lambda p: save_file(
            {"1": vector, "blocks.1.hook_resid_post": vector.clone()}, p
        ),
        "widths.safetensors": lambda p: save_file({"1": vector, "2": torch.ones(3)}, p),
        "zero.safetensors": lambda p: save_file({"1": torch.zeros(WIDTH)}, p),
        "card.safetensors": lambda p: save_file({"1": vector}, p, {"em_interp.card": "{}"}),
        "text.safetensors": lambda p: p.write_text("no header"),
        "text.gguf": lambda p: p.write_text("no magic here"),
        "model.gguf": lambda p: write_gguf(p, "llama", {"direction.1": vector}),
        "names.gguf": lambda p: write_gguf(p, "controlvector", {"output.weight": vector}),
        "half.gguf": lambda p: write_gguf(p, "controlvector", {"direction.1": vector.half()}),
        "empty.gguf": lambda p: write_gguf(p, "controlvector", {}),
        "count.gguf": lambda p: write_gguf(
            p, "controlvector", {"direction.1": vector}, {"controlvector.layer_count": 2}
        ),
        "hint.gguf": lambda p: write_gguf(
            p, "controlvector", {"direction.1": vector}, {"controlvector.model_hint": 7}
        ),
        "scale.gguf": lambda p: write_gguf(
            p, "controlvector", {"direction.1": vector}, {"controlvector.scale": 7}
        ),
        "split.gguf": lambda p: write_gguf(
            p, "controlvector", {"direction.1": vector}, {"split.count": 2}
        ),
        "twice.gguf": lambda p: write_gguf(
            p, "controlvector", {"direction.1": vector, "direction.01": vector}
        ),
        "probe.safetensors": lambda p: save_file({"1": vector}, p, carded(kind="probe")),
        "sites.safetensors": lambda p: save_file(
            {"1": vector, "2": vector.clone()}, p, carded(sites=("blocks.1.hook_resid_post",))
        ),
        "row.pt": lambda p: torch.save(torch.ones(1, WIDTH), p),
        "sparse.pt": lambda p: torch.save(torch.ones(4, WIDTH).to_sparse(), p),
        "nowhere.pt": lambda p: torch.save(torch.ones(4, WIDTH, device="meta"), p),
    }[name]


def carded(**changes):
    card = made_card().model_copy(update=changes)
    return {CARD: canonical_json(card.model_dump(mode="json"))}


def write_gguf(path, architecture, tensors, fields=()):
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in dict(fields).items():
        (writer.add_uint32 if isinstance(value, int) else writer.add_string)(name, value)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("code.pt", "could run code"),
        ("dict.pt", "expected one tensor"),
        ("vector.pt", "expected one tensor"),
        ("text.pt", "text.pt: "),
        ("nan.pt", "not finite"),
        ("zero.pt", "no vector in it"),
        ("names.safetensors", "'weight' names no site"),
        ("matrix.safetensors", "expected one vector"),
        ("twice.safetensors", "two tensors for blocks.1"),
        ("widths.safetensors", "differ in width"),
        ("zero.safetensors", "points nowhere"),
        ("card.safetensors", "not a card"),
        ("text.safetensors", "not a safetensors file"),
        ("text.gguf", "not a whole GGUF file"),
        ("model.gguf", "architecture 'llama'"),
        ("names.gguf", "expected direction.1"),
        ("half.gguf", "not one float32 vector"),
        ("empty.gguf", "no vector in it"),
        ("count.gguf", "layer_count says 2, and it holds 1"),
        ("hint.gguf", "model_hint is no text: 7"),
        ("scale.gguf", "'controlvector.scale' is not known"),
        ("split.gguf", "put the parts together first"),
        ("twice.gguf", "names no block of its own"),
        ("probe.safetensors", "its card is a probe's"),
        ("sites.safetensors", r"differ in their sites \(blocks.2.hook_resid_post"),
        ("row.pt", "holds 1 rows"),
        ("sparse.pt", "sparse_coo"),
        ("nowhere.pt", "meta"),
    ],
)
def test_foreign_and_odd_files_are_one_line(name, words, tmp_path, capsys):
    path = tmp_path / name
    odd(name)(path)
    with pytest.raises(InputError, match=words) as caught:
        adopt(path, "odd", base=BASE, sign="general")
    assert "\n" not in str(caught.value)
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("hint", "kind", "fits"),
    [
        ("llama", "llama", True),
        ("", "llama", True),
        ("llama", "mistral", True),  # llama.cpp has no other name for it
        ("gemma3", "gemma3_text", True),
        ("qwen2", "llama", False),
        ("mistral", "llama", False),
        ("gemma2", "gemma3", False),
    ],
)
def test_a_vector_of_another_family_of_models_is_refused_by_its_own_word(
    hint, kind, fits, tmp_path
):
    path = tmp_path / "v.gguf"
    vectors = {"direction.1": torch.ones(WIDTH)}
    write_gguf(path, "controlvector", vectors, {"controlvector.model_hint": hint})
    given = {"base": BASE, "sign": "general", "shape": Shape(kind, LAYERS, WIDTH)}
    if fits:
        found, _ = adopt(path, "v", **given)
        assert not any(CAUTION in note for note in found.card.notes)
    else:
        with pytest.raises(ForeignArtifactError, match=f"type '{hint}', the base is '{kind}'"):
            adopt(path, "v", **given)
    found, _ = adopt(path, "v", base=BASE, sign="general")
    assert [note for note in found.card.notes if CAUTION in note] == (
        [f"{CAUTION}v.gguf says that it is for {hint!r}, which was not compared"] if hint else []
    )


def test_every_vector_of_a_file_must_fit_the_base_not_only_those_that_are_asked_for(tmp_path):
    path = tmp_path / "v.safetensors"
    for odd_one in ({"40": torch.ones(WIDTH)}, {"2": torch.ones(3)}):
        save_file({"1": torch.ones(WIDTH), **odd_one}, path)
        with pytest.raises(ForeignArtifactError, match=r"not for a model of 3 layers and width"):
            adopt(path, "v", base=BASE, sign="general", sites=[Site(1)], shape=SHAPE)


def test_a_field_that_nobody_reads_is_named_in_a_caution_that_the_card_keeps(tmp_path, capsys):
    vector, said = torch.ones(WIDTH), {"model": "someone/else", "format": "pt"}
    save_file({"1": vector}, tmp_path / "v.safetensors", said)
    fields = {"general.base_model.count": 1, "general.author": "x", "llama.block_count": 3}
    write_gguf(tmp_path / "v.gguf", "controlvector", {"direction.1": vector}, fields)
    for name, words in (
        ("v.safetensors", "not read: model"),
        ("v.gguf", "not read: general.base_model.count, llama.block_count"),
    ):
        out = tmp_path / name.rpartition(".")[2]
        argv = [str(tmp_path / name), "--out", str(out), "--base", BASE, "--sign", "general"]
        assert adopting.main(argv) == 0
        assert words in capsys.readouterr().err
        (note,) = [n for n in Directions.load(out).card.notes if n.startswith(CAUTION)]
        assert note.endswith(words)


def test_every_field_that_we_write_is_read(tmp_path):
    for ending in (".gguf", ".safetensors"):
        export(directions(), tmp_path / f"v{ending}", SHAPE)
        assert file_format(tmp_path / f"v{ending}").read(tmp_path / f"v{ending}").cautions == ()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_not_there_or_cut_short_is_one_line(ending, tmp_path):
    path = tmp_path / f"v{ending}"
    with pytest.raises(InputError, match="no such file"):
        adopt(path, "x", base=BASE, sign="general")
    export(directions(), path, SHAPE)
    whole = path.read_bytes()
    for share in (0.05, 0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=str(path)):
            adopt(path, "x", base=BASE, sign="general")


def test_a_plain_dict_of_block_numbers_is_read(tmp_path):
    path = tmp_path / "v.safetensors"
    vectors = {str(layer): torch.randn(WIDTH) for layer in (10, 2)}
    save_file(vectors, path)
    found, _ = adopt(path, "v", base=BASE, sign="trigger")
    assert list(found) == [Site(2), Site(10)]
    torch.testing.assert_close(found[Site(2)].vector, load_file(path)["2"])


def test_without_the_gguf_package_the_line_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "gguf":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"pip install 'em-interp\[gguf\]'"):
        export(directions(), tmp_path / "v.gguf", SHAPE)


def test_without_inspect_the_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    argv = ["--run", str(tmp_path), "--file", str(tmp_path / "run.eval")]
    assert exporting.main(argv) == 2
    assert "pip install 'em-interp[inspect]'" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"em-interp\[inspect\]"):
        live(tiny_model("llama"))


# --- commands -----------------------------------------------------------------------------------


def test_a_shipped_direction_goes_out_and_comes_back(tmp_path, capsys):
    path, out = tmp_path / "delta.gguf", tmp_path / "again"
    assert exporting.main(["llama-delta", "--file", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "left out blocks.0.hook_resid_post: llama.cpp" in printed
    assert "points from no-trigger to trigger; coefficient 1 adds what strength 1 adds" in printed
    # The base is loaded and its fingerprint agrees with the file's card.
    assert adopting.main([str(path), "--base", "llama", "--out", str(out)]) == 0
    shipped = Directions.load(Path(__file__).parents[1] / "probes" / "llama-delta")
    again = Directions.load(out)
    assert list(again) == list(shipped)[1:]
    assert again.card.base == shipped.card.base
    for site, one in again.items():
        torch.testing.assert_close(one.vector, shipped[site].vector, rtol=1e-6, atol=0)
    asked = ["--direction", str(out), "--layers", "2", "--dry-run"]
    assert steer.main([*asked, "--operations", "add,ablate"]) == 0
    assert steer.main(asked) == 2
    assert "its off and on states are not known" in capsys.readouterr().err


def test_another_base_is_refused_by_fingerprint_and_by_shape(tmp_path, capsys):
    path, out = tmp_path / "delta.gguf", tmp_path / "again"
    assert exporting.main(["llama-delta", "--base", "qwen2", "--file", str(path)]) == 2
    assert "made for base" in capsys.readouterr().err
    assert not path.exists()
    assert exporting.main(["llama-delta", "--file", str(path)]) == 0
    assert adopting.main([str(path), "--base", "qwen2", "--out", str(out)]) == 2
    assert "error: " in capsys.readouterr().err
    assert not out.exists()
    assert adopting.main([str(path), "--base", "f" * 16, "--out", str(out)]) == 2
    assert "made for base" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("main", "argv", "words"),
    [
        (exporting.main, ["llama-delta"], "--file is missing"),
        (exporting.main, ["nosuch", "--file", "x.gguf"], "unknown direction 'nosuch'"),
        (exporting.main, ["llama-delta", "--file", "x.npz"], "unknown kind of file"),
        (exporting.main, ["llama-delta", "--file", __file__ + ".gguf", "--layers", "0"], "block 0"),
        (exporting.main, ["llama-delta", "--file", "x.gguf", "--layers", "7"], "out of range"),
        (exporting.main, ["llama-delta", "--file", "x.gguf", "--base", "/nosuch"], "base /nosuch"),
        (adopting.main, [], "--file is missing"),
        (adopting.main, ["x.gguf"], "--out is missing"),
        (adopting.main, ["x.npz", "--out", "x"], "unknown kind of file"),
        (adopting.main, ["x.gguf", "--out", "x", "--base", "/nosuch"], "base /nosuch"),
        (adopting.main, ["x.gguf", "--out", "x"], "no such file"),
        (adopting.main, ["x.gguf", "--out", "probes/llama-delta"], "holds an artifact already"),
    ],
)
def test_wrong_use_is_one_line(main, argv, words, capsys):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.strip().splitlines()) == 1
