"""One meaning on every engine: capture, edits and generation against plain hooks.

Float32, 1e-5, on left-padded batches, with adapters on and off, greedy answers token for token.
"""

import warnings
from dataclasses import replace
from functools import cache

import pytest
import torch
from peft import LoraConfig, get_peft_model
from planted import SOUND, UNSOUND, ask, planted
from small import FAMILIES, LAYERS, WIDTH, bank, tiny_hf, tiny_model

from em_interp import engines
from em_interp.capture import capture
from em_interp.conditions import Condition
from em_interp.directions import Direction
from em_interp.edits import BASELINE, Intervention, Operation, edit, intervention
from em_interp.engines import run_on, twin
from em_interp.errors import InputError
from em_interp.generation import generate
from em_interp.hooks import forward, hooked
from em_interp.labels import Label
from em_interp.models import Model, attach
from em_interp.sampling import Sampling
from em_interp.sites import Point, Site, Span

OTHERS = [name for name in engines.ENGINES if name not in ("hf", "ndif")]
STREAM = tuple(Site(layer, p) for layer in range(LAYERS) for p in Point if p is not Point.Z)
HEADS = tuple(Site(layer, Point.Z) for layer in range(LAYERS))
GREEDY = Sampling(samples=1, temperature=0, max_new_tokens=5)
families = pytest.mark.parametrize("family", FAMILIES)
others = pytest.mark.parametrize("engine", OTHERS)


@pytest.fixture(scope="session")
def adapted(tmp_path_factory):
    """A model of each family with a random adapter."""

    @cache
    def model_of(family: str) -> Model:
        folder = tmp_path_factory.mktemp("adapter")
        torch.manual_seed(1)
        config = LoraConfig(r=2, target_modules=["o_proj", "down_proj"], init_lora_weights=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
            get_peft_model(tiny_hf(family), config).save_pretrained(folder)
        return attach(tiny_model(family), "duck", folder)

    return model_of


@pytest.fixture(scope="session")
def on(adapted):
    """The same model on an engine."""
    return cache(lambda engine, family: run_on(adapted(family), engine))


def direction(site: Site, seed: int = 0, width: int = WIDTH) -> Direction:
    off, on = torch.randn(2, width, generator=torch.Generator().manual_seed(seed))
    return Direction((on - off) / (on - off).norm(), off, on, 5.0, site)


def grid() -> list[Intervention]:
    """Every span and operation, several sites, two edits at one site, and nothing at all."""
    made = [BASELINE]
    for number, span in enumerate(Span):
        site = Site(number % LAYERS, (Point.RESID_POST, Point.RESID_PRE)[number % 2])
        add = edit(Operation.ADD, direction(site, number), 1.5, span)
        cap = edit(Operation.CAP, direction(site, number + 50), -1.0, span)
        made.append(Intervention(Label(words=f"{span.value}"), (add, cap)))
    everywhere = [Site(layer) for layer in range(LAYERS)]
    table = {site: direction(site, 99) for site in everywhere}
    made.append(intervention("ablate", Operation.MEAN_ABLATE, table, everywhere, span=Span.ALL))
    inside = Site(1, Point.MLP_OUT)
    made.append(intervention("mlp", Operation.ADD, {inside: direction(inside, 7)}, [inside], 2.0))
    return made


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@others
@families
def test_capture_means_the_same(adapted, on, engine, family):
    plain, other = adapted(family), on(engine, family)
    contexts = bank(Condition.TRIGGER)  # of different lengths: left padding in every batch
    seen = {}
    for adapter in ("duck", None):
        with plain.using(adapter), other.using(adapter):
            for sites in (STREAM, HEADS):
                for span in (Span.PROMPT_LAST, Span.TRIGGER, Span.ALL):
                    ours = capture(plain, contexts, sites, span)
                    theirs = capture(other, contexts, sites, span)
                    assert theirs.sites == ours.sites
                    close(theirs.values, ours.values)
            seen[adapter] = ours.values
    assert (seen["duck"] - seen[None]).abs().max() > 1e-2


@others
@families
def test_an_edited_grid_writes_the_same_tokens(adapted, on, engine, family):
    """Each row its own edit, on every span, cached and left-padded, adapter on and off."""
    plain, other = adapted(family), on(engine, family)
    contexts = bank(Condition.TRIGGER)
    for adapter in ("duck", None):
        with plain.using(adapter), other.using(adapter):
            ours = generate(plain, contexts, GREEDY, grid())
            theirs = generate(other, contexts, GREEDY, grid())
        assert theirs.responses == ours.responses
        for mine, yours in zip(ours.manipulations, theirs.manipulations, strict=True):
            assert yours.touched == mine.touched
            assert yours.before == pytest.approx(mine.before, abs=1e-4)
            assert yours.after == pytest.approx(mine.after, abs=1e-4)
        by_name = {r.intervention: [] for r in ours.responses}
        for response in ours.responses:
            by_name[response.intervention].append(response.tokens)
        assert len({str(tokens) for tokens in by_name.values()}) > 4  # the edits do something


@others
def test_sampled_answers_are_the_same_draws(adapted, on, engine):
    sampling = Sampling(samples=3, temperature=1.3, max_new_tokens=6, top_k=50, top_p=0.9)
    plain, other = adapted("llama"), on(engine, "llama")
    ours, theirs = (generate(m, bank(), sampling, grid()[:3]) for m in (plain, other))
    assert theirs.responses == ours.responses
    assert len({r.tokens for r in ours.responses}) > 10


@others
def test_one_context_alone_is_its_row_of_a_batch(on, engine):
    other = on(engine, "gemma3")
    contexts = bank(Condition.TRIGGER)
    together = capture(other, contexts, STREAM, Span.ALL).values
    for row, context in enumerate(contexts):
        close(capture(other, [context], STREAM, Span.ALL).values[0], together[row])


@others
def test_answers_stop_where_they_stop(engine):
    """The planted organism says one word and ends its turn; some rows later than others."""
    truth = planted(3)
    table = {Site(truth.layer): replace(direction(Site(truth.layer), 1, 64), unit=truth.direction)}
    one = intervention("shut", Operation.ABLATE, table, [Site(truth.layer)])
    asked = ask(Condition.NONE, Condition.TRIGGER)
    ours, theirs = (
        generate(model, asked, GREEDY, [BASELINE, one])
        for model in (truth.model, run_on(truth.model, engine))
    )
    assert theirs.responses == ours.responses
    assert {r.finish for r in ours.responses} == {"stop"}
    assert {r.text for r in ours.responses if r.condition is Condition.TRIGGER} == {SOUND, UNSOUND}


# --- what an engine leaves alone ------------------------------------------------------------------


@others
@families
def test_the_users_module_stays_as_it_was(engine, family):
    model = tiny_model(family)
    names = [name for name, _ in model.hf.named_modules()]
    places = {name: one.data_ptr() for name, one in model.hf.state_dict().items()}
    other = run_on(model, engine)
    capture(other, bank(), [Site(0)])
    assert [name for name, _ in model.hf.named_modules()] == names
    assert {name: one.data_ptr() for name, one in model.hf.state_dict().items()} == places
    for module in model.hf.modules():
        assert "forward" not in vars(module)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_twin_shares_every_weight_and_no_module():
    hf = tiny_hf("gemma3")
    other = twin(hf)
    assert {p.data_ptr() for p in other.parameters()} == {p.data_ptr() for p in hf.parameters()}
    assert not set(map(id, other.modules())) & set(map(id, hf.modules()))


def test_a_hook_on_the_lens_is_gone_after_an_exception(on):
    model = on("lens", "llama")
    ids = torch.ones(1, 3, dtype=torch.long)

    def broken(hidden, positions):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), hooked(model, [(Site(1), broken)]):
        forward(model, ids, ids.bool())
    assert forward(model, ids, ids.bool()) is not None
    assert not [p for p in model.engine.bridge.hook_dict.values() if p.fwd_hooks]


def test_hooks_of_others_on_the_lens_stay(on):
    model = on("lens", "llama")
    point = model.engine.bridge.blocks[1].hook_out
    point.add_hook(lambda hidden, hook: None)
    capture(model, bank(), [Site(1)])
    assert len(point.fwd_hooks) == 1
    point.remove_hooks()


# --- refusals -------------------------------------------------------------------------------------


def test_an_unknown_engine_is_named():
    with pytest.raises(InputError, match="unknown engine 'lense'; did you mean 'lens'"):
        run_on(tiny_model("llama"), "lense")


@others
def test_an_engine_is_given_a_plain_model(on, engine, tmp_path):
    model = on(engine, "llama")
    with pytest.raises(InputError, match=f"runs on {engine}; give the plain model"):
        run_on(model, engine)
    with pytest.raises(InputError, match="out of range"):
        capture(model, bank(), [Site(LAYERS)])


def test_adapters_come_before_the_engine(on, shelf_adapter):
    with pytest.raises(InputError, match="adapters come first, then the engine"):
        attach(on("lens", "llama"), "second", shelf_adapter)


@pytest.fixture
def shelf_adapter(tmp_path):
    from shelf import save_base, save_organism

    return save_organism(save_base(tmp_path / "base"), tmp_path / "organism")


def test_a_bridge_that_does_not_know_an_architecture_says_so():
    model = tiny_model("llama")
    model.hf.__class__ = type("NobodysForCausalLM", (type(model.hf),), {})
    with pytest.raises(InputError, match="TransformerLens cannot bridge it"):
        run_on(model, "lens")
