"""`python -m em_interp.world`: raise a base of the embedded world from its recipe."""

import sys
from pathlib import Path

from pydantic import Field

from em_interp.bounds import Processes
from em_interp.cli import command
from em_interp.records import Spec
from em_interp.world.recipe import BaseRecipe, base_names, recipe


class RaiseSpec(Spec):
    """Which base to raise, and where to put it."""

    base: str = Field("llama", description=f"{', '.join(base_names())}; or a recipe's YAML file.")
    out: Path | None = Field(None, description="Folder to write; default: checkpoints/<name>.")
    threads: Processes = Field(2, description="Threads; equal bytes need equal threads.")
    dry_run: bool = Field(False, description="Check the recipe and print it; train nothing.")


def run(spec: RaiseSpec) -> int:
    """Check, raise with a progress bar, save, print the card's figures."""
    from em_interp.sources import CHECKPOINTS

    wanted = BaseRecipe.from_yaml(spec.base) if spec.base.endswith("yaml") else recipe(spec.base)
    out = spec.out or CHECKPOINTS / wanted.name
    from em_interp.world.bases import check_target, recipe_text, save

    check_target(out)
    if spec.dry_run:
        print(recipe_text(wanted), end="")
        return 0

    import torch

    from em_interp.progress import bar
    from em_interp.world.raising import raise_base

    torch.set_num_threads(spec.threads)
    steps = wanted.pretraining.steps + wanted.aligned.steps
    with bar(f"raising {wanted.name}", steps) as progress:
        card = save(raise_base(wanted, lambda *_: progress(1)), out)
    print(f"{out}: {card.parameters:,} parameters, final loss {card.final_loss}")
    return 0


main = command(
    "world",
    RaiseSpec,
    run,
    "Raise a base of the embedded world: corpus, tokenizer, pretraining, aligned stage.",
    "llama --out my-llama",
    positional="base",
)

if __name__ == "__main__":
    sys.exit(main())
