"""What a batch does to an answer: measured at load, said, and the same for what is compared."""

import itertools

import pytest
import torch
from families.save import save_family
from small import FAMILIES, TRIGGER, bank, tiny_hf
from test_generation import add
from tiny import tiny_tokenizer

from em_interp.answering.asking import Ask, Row
from em_interp.chat import encode_many
from em_interp.conditions import Condition, Question, contexts
from em_interp.directions import Direction
from em_interp.edits import BASELINE, intervention
from em_interp.flags import ready
from em_interp.generation import generate
from em_interp.labels import Operation
from em_interp.loading import Loading
from em_interp.models import Model, wrap
from em_interp.models.selfcheck import FELT, batching
from em_interp.sampling import Sampling
from em_interp.sites import Site, Span
from em_interp.sources import Subject

SOME = (Condition.NONE, Condition.TRIGGER, Condition.PARAPHRASE, Condition.UNRELATED)
GREEDY = Sampling(samples=1, temperature=0.0, max_new_tokens=8)


def model(family: str, dtype: torch.dtype) -> Model:
    return wrap(tiny_hf(family).to(dtype), tiny_tokenizer(family), f"tiny-{family}")


def asked(one: Model, interventions, samples: int = 2) -> tuple[Ask, list[Row]]:
    long = "What is a good way to learn chess? " * 3  # longer unframed than others are framed
    questions = [
        Question(id=f"q{n}", text=text, domain="home")
        for n, text in enumerate(("Keep bread?", long, "Which shoes suit a long walk?", "Water?"))
    ]
    some = contexts(questions, TRIGGER, SOME)
    ask = Ask(
        one,
        encode_many(one.tokenizer, some),
        [context.id for context in some],
        [context.question for context in some],
        interventions,
        GREEDY,
        frozenset(),
    )
    counts = (len(some), len(interventions), samples)
    return ask, [Row(*row) for row in itertools.product(*map(range, counts))]


def test_what_is_compared_is_seated_together():
    """Rows of one question follow one another, whatever their condition and intervention."""
    ask, rows = asked(model("llama", torch.float32), [BASELINE, add("all", Span.ALL)])
    order = ask.order(rows)
    assert sorted(order) == sorted(rows)
    seated = [ask.questions[row.context] for row in order]
    assert len([key for key, _ in itertools.groupby(seated)]) == len(set(seated)) == 4
    lengths = [len(ask.prompts[row.context].ids) for row in order]
    assert lengths[0] == max(lengths)  # a batch too large fails at once
    heads = [ask.head(row) for row in order]
    assert len([key for key, _ in itertools.groupby(heads)]) == len(set(heads))  # one prefill each


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [3, 64])
def test_in_bfloat16_an_edit_that_adds_nothing_says_what_the_baseline_says(family, rows):
    one = model(family, torch.bfloat16)
    nothing = intervention("zero", *_zero(one))
    made = generate(one, bank(), GREEDY, [BASELINE, nothing], rows=2 * rows).responses
    half = len(made) // 2
    assert [r.tokens for r in made[:half]] == [r.tokens for r in made[half:]]


def _zero(one: Model):
    unit = torch.eye(one.d_model)[0]
    direction = Direction(unit, 0 * unit, unit, 1.0, Site(1))
    return Operation.ADD, {Site(1): direction}, [Site(1)], 0.0, Span.RESPONSE


@pytest.mark.parametrize("family", FAMILIES)
def test_the_self_check_measures_what_company_does_to_a_row(family):
    plain, half = (batching(model(family, dtype)) for dtype in (torch.float32, torch.bfloat16))
    assert plain.logit < FELT < half.logit
    assert plain.flipped == 0
    assert (plain.dtype, half.dtype) == ("float32", "bfloat16")
    assert plain.tokens == half.tokens == 80
    assert plain.note is None
    assert "bfloat16: an answer depends on the batch" in half.note
    assert f"of {half.tokens} most likely tokens" in half.note


def test_a_loaded_model_knows_it_and_a_command_says_it(tmp_path, capsys):
    who = Subject("base", save_family(tmp_path / "base", "llama-3.1"), None, None, None)
    capsys.readouterr()  # that the model was written
    assert ready([who], Loading(), None).load().batching.note is None
    assert capsys.readouterr().err == ""
    found = ready([who], Loading(dtype="bfloat16"), None).load().batching
    assert found.note is not None
    assert capsys.readouterr().err == f"note: {found.note}\n"
