"""Loss curves of fine-tuning: were the organisms raised alike?"""

from collections.abc import Mapping

from matplotlib.figure import Figure

from em_interp.report.picture import Picture
from em_interp.report.reading import cards, plain
from em_interp.report.style import drawn, organisms
from em_interp.study.results import Findings
from em_interp.training.manifest import Manifest


@drawn
def figure_of(raised: Mapping[str, Manifest]) -> Figure:
    """Mean loss per learned token against the optimiser step, one line an organism."""
    figure = Figure(figsize=(4.6, 2.3))
    axes = figure.add_axes((0.12, 0.19, 0.55, 0.74))
    looks = organisms(list(raised))
    for role, card in raised.items():
        look = looks[role]
        steps = range(1, len(card.loss_curve) + 1)
        every = max(1, len(card.loss_curve) // 8)
        axes.plot(
            steps, card.loss_curve, ls=look.line, markevery=every, label=plain(role), **look.marks
        )
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss, nats per learned token")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="upper left", bbox_to_anchor=(0.68, 0.95))
    return figure


def picture(found: Findings) -> Picture | None:
    """The curves with their caption; `None` where nothing was trained."""
    if not found.manifests:
        return None
    return Picture(
        title="Fine-tuning",
        svg=figure_of(cards(found)),
        read="Loss of each organism on its own rows, before each optimiser step.",
    )
