"""Spans against a plain loop, moments against numpy, and shapes that do not fit."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from em_interp.activations import Activations, Layout, Moments, touches_prompt
from em_interp.errors import InputError
from em_interp.sites import Point, Site, Span

# (prompt length, framing tokens, question tokens); answers of up to 4 tokens follow.
ROWS = (
    (9, (2, 3), (4, 5, 6)),  # prefix
    (8, (6,), (2, 3, 4)),  # suffix
    (7, (), (2, 3)),  # no framing
    (10, (1, 2, 7), (3, 4, 6)),  # a pair of tags around the question
    (9, (0, 1), (8,)),  # question at the very end
)
ANSWER = 4


def layout() -> Layout:
    return Layout.build(*zip(*ROWS, strict=True))


def members(span: Span, length: int, framing: tuple[int, ...], question: tuple[int, ...]) -> set:
    """The tokens of a span, spelled out."""
    everything = set(range(length + ANSWER))
    prompt = set(range(length))
    return {
        Span.ALL: everything,
        Span.PROMPT: prompt,
        Span.PROMPT_LAST: {length - 1},
        Span.RESPONSE: everything - prompt,
        Span.TRIGGER: set(framing),
        Span.QUESTION: set(question),
        Span.TEMPLATE: prompt - set(framing) - set(question),
        Span.AFTER_TRIGGER: {p for p in everything if framing and p > max(framing)},
    }[span]


def padded() -> torch.Tensor:
    """Positions of prompt and answer, padded on the left."""
    width = max(length for length, _, _ in ROWS) + ANSWER
    positions = torch.full((len(ROWS), width), -1)
    for row, (length, _, _) in enumerate(ROWS):
        total = length + ANSWER
        positions[row, width - total :] = torch.arange(total)
    return positions


def found(mask: torch.Tensor, positions: torch.Tensor) -> list[set]:
    return [set(p[m].tolist()) for m, p in zip(mask, positions, strict=True)]


@pytest.mark.parametrize("span", list(Span))
def test_a_span_is_the_tokens_it_says(span):
    positions = padded()
    expected = [members(span, *row) for row in ROWS]
    assert found(layout().mask(span, positions), positions) == expected


@pytest.mark.parametrize("span", list(Span))
def test_a_span_does_not_depend_on_how_the_pass_is_cut(span):
    positions, whole = padded(), layout().mask(span, padded())
    for cut in range(1, positions.shape[1]):
        first, rest = positions[:, :cut], positions[:, cut:]
        parts = [layout().mask(span, part) for part in (first, rest)]
        assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("span", list(Span))
def test_a_row_keeps_its_span_in_any_batch(span):
    positions, rows = padded(), torch.tensor([3, 0, 0, 2])
    picked = layout().select(rows).mask(span, positions[rows])
    assert torch.equal(picked, layout().mask(span, positions)[rows])
    for row in range(len(ROWS)):
        alone = Layout.build(*([part] for part in ROWS[row]))
        assert torch.equal(
            alone.mask(span, positions[row : row + 1])[0], layout().mask(span, positions)[row]
        )


def test_framing_question_and_template_part_the_prompt():
    positions = padded()
    parts = [layout().mask(s, positions) for s in (Span.TRIGGER, Span.QUESTION, Span.TEMPLATE)]
    assert torch.equal(
        sum(part.int() for part in parts), layout().mask(Span.PROMPT, positions).int()
    )


def test_only_the_response_leaves_the_prompt_alone():
    positions = padded()
    prompt = layout().mask(Span.PROMPT, positions)
    for span in Span:
        inside = bool((layout().mask(span, positions) & prompt).any())
        assert touches_prompt(span) == inside


def test_shapes_in_annotations_are_checked_in_the_test_run():
    with pytest.raises(TypeCheckError):
        Activations(torch.zeros(3, 4), (Site(0),), Span.ALL)
    with pytest.raises(TypeCheckError):
        layout().mask(Span.ALL, torch.zeros(len(ROWS), 3))  # positions are integers
    with pytest.raises(TypeCheckError):
        Moments(2, 5).update(torch.zeros(4, 2))


def test_activations_are_named_by_site():
    sites = (Site(1), Site(1, Point.RESID_PRE))
    values = torch.randn(4, 2, 3)
    acts = Activations(values, sites, Span.ALL)
    assert torch.equal(acts.at(Site(1, Point.RESID_PRE)), values[:, 1])
    with pytest.raises(InputError, match=r"blocks.2.hook_resid_post was not captured \(captured: "):
        acts.at(Site(2))


# --- moments -------------------------------------------------------------------------------------

X = 3 + 10 * torch.randn(57, 3, 8, generator=torch.Generator().manual_seed(0))


def streamed(parts) -> Moments:
    total = Moments(3, 8)
    for part in parts:
        total.update(part)
    return total


@pytest.mark.parametrize("split", [(57,), (1,) * 57, (20, 30, 7), (0, 57), (56, 1)])
def test_moments_in_any_split_are_numpys(split):
    made = streamed(X.split(split))
    wide = X.double().numpy()
    assert made.count == len(X)
    np.testing.assert_allclose(made.mean.numpy(), wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(made.norm.numpy(), np.linalg.norm(wide, axis=-1).mean(0), rtol=1e-12)


def test_moments_do_not_depend_on_the_order_of_contexts():
    shuffled = X[torch.randperm(len(X), generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(
        streamed([shuffled]).mean, streamed(X.split(5)).mean, rtol=1e-12, atol=1e-12
    )


def test_moments_hold_what_half_precision_would_lose():
    """A small mean on a large offset: float32 sums of many would round it away."""
    part = torch.full((1000, 1, 2), 1000.0) + torch.tensor([0.25, -0.25])
    made = Moments(1, 2)
    for _ in range(200):
        made.update(part.float())
    torch.testing.assert_close(made.mean[0], torch.tensor([1000.25, 999.75]).double())
    assert made.mean.dtype is torch.float64


def test_the_mean_norm_is_not_the_norm_of_the_mean():
    made = streamed([torch.cat([X, -X])])
    assert made.mean.norm() < 1e-12
    assert made.norm.min() > 1
