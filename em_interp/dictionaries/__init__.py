"""Dictionaries: sparse features of the stream at one site, trained and read with SAELens.

A dictionary writes an activation as a bias and a few latents, each with its decoder direction. It
knows the base and the site that it was made for, and refuses others. Training streams activations
token by token; wandb, which SAELens imports, is never asked for anything.
Knows SAELens, sites and activations. Knows nothing of triggers or answers.
"""

import contextlib
import importlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from em_interp.batches import collate, pad_id
from em_interp.conditions import Context
from em_interp.dictionaries.fields import Statement, read_fields, read_folder
from em_interp.errors import ForeignArtifactError, InputError, reading
from em_interp.hooks import forward, hooked
from em_interp.models import Model
from em_interp.models.limits import encoded
from em_interp.patching.copying import by_position
from em_interp.sites import Site

AT_ONCE = 64  # contexts in a pass


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A SAELens dictionary, its site, and the base it was made for (`""`: not known).

    `made_on` is what its maker calls that base, for people.
    """

    sae: Any
    site: Site
    base: str
    made_on: str = ""

    @property
    def width(self) -> int:
        """Number of latents."""
        return int(self.sae.cfg.d_sae)

    def encode(self, stream: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """Activations as latents."""
        found: Tensor = self.sae.encode(stream.float())
        return found

    def decode(self, latents: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n d_model"]:
        """Latents as activations."""
        found: Tensor = self.sae.decode(latents)
        return found

    def vector(self, latent: int) -> Float[Tensor, " d_model"]:
        """What a latent of 1 adds to the stream."""
        found: Tensor = self.sae.W_dec.detach()[latent].float().cpu()
        return found

    def check(self, model: Model) -> None:
        """Raise `ForeignArtifactError` for another base, a missing layer or another width."""
        if self.base and model.base and self.base != model.base:
            raise ForeignArtifactError(
                f"this dictionary was made for base {self.base}; {model.name} is {model.base}"
            )
        if self.site.layer >= model.n_layers or int(self.sae.cfg.d_in) != model.d_model:
            raise ForeignArtifactError(
                f"this dictionary reads {self.sae.cfg.d_in} numbers at {self.site}; {model.name} "
                f"has {model.n_layers} layers of width {model.d_model}"
            )

    def at(self, site: Site) -> "Dictionary":
        """The dictionary itself, at its own site. Raises `ForeignArtifactError` at another."""
        if site != self.site:
            raise ForeignArtifactError(f"this dictionary was made for {self.site}, not for {site}")
        return self

    def save(self, folder: Path) -> None:
        """Write SAELens' own format: cfg.json (with site and base in its metadata), safetensors."""
        trained = hasattr(self.sae, "save_inference_model")  # a loaded one is for inference already
        (self.sae.save_inference_model if trained else self.sae.save_model)(folder)


@torch.inference_mode()
def tokens(
    model: Model, contexts: Sequence[Context], site: Site
) -> Iterator[Float[Tensor, "token d_model"]]:
    """Activations of every real token at a site, some contexts at a time, on the CPU."""
    prompts = encoded(model, contexts)
    for start in range(0, len(prompts), AT_ONCE):
        some = prompts[start : start + AT_ONCE]
        width = max(len(p.ids) for p in some)
        batch = collate(some, pad_id(model.tokenizer)).to(model.device)
        seen: list[Tensor] = []

        def look(
            hidden: Tensor, positions: Tensor, seen: list[Tensor] = seen, width: int = width
        ) -> None:
            seen.append(by_position(hidden, positions, width))

        with hooked(model, [(site, look)]):
            forward(model, batch.ids, batch.mask)
        yield torch.cat(
            [row[: len(p.ids)] for row, p in zip(seen[0].float().cpu(), some, strict=True)]
        )


def sae_lens() -> Any:
    """SAELens, imported late: it takes TransformerLens by a name that is on its way out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The 'utils' module has been deprecated")
        lens = importlib.import_module("sae_lens")
        importlib.import_module("sae_lens.training.sae_trainer")
    return lens


def train(
    model: Model,
    contexts: Sequence[Context],
    site: Site,
    *,
    width: int,
    active: int,
    samples: int,
    batch: int = 256,
    rate: float = 3e-3,
    seed: int = 0,
) -> Dictionary:
    """A TopK dictionary of `width` latents, `active` at a time, on the contexts' tokens.

    `samples` tokens are shown, in a new random order at every turn. Raises `InputError` for fewer
    tokens than a batch.
    """
    lens = sae_lens()
    # A copy: what was made in inference mode cannot take part in training.
    pool = torch.cat([some.clone() for some in tokens(model, contexts, site)])
    if len(pool) < batch or active > width:
        raise InputError(
            f"a dictionary needs at least {batch} tokens and width >= active; there are "
            f"{len(pool)} tokens, width {width}, active {active}"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = lens.TopKTrainingSAEConfig(d_in=pool.shape[1], d_sae=width, k=active)
        sae = lens.TopKTrainingSAE(config)
        sae.b_dec.data = pool.mean(dim=0)  # latents are for what differs, not for what is common
        cfg = lens.config.SAETrainerConfig(
            total_training_samples=samples,
            train_batch_size_samples=batch,
            lr=rate,
            lr_end=rate / 10,  # without it SAELens' trainer stops at an assertion
            lr_scheduler_name="constant",
        )
        with contextlib.redirect_stderr(io.StringIO()):  # its own bar
            lens.training.sae_trainer.SAETrainer(
                cfg=cfg, sae=sae, data_provider=_shuffled(pool, batch, seed)
            ).fit()
    sae.cfg.metadata.hook_name = str(site)
    sae.cfg.metadata.model_name = model.name
    sae.cfg.metadata.em_interp_base = model.base
    return Dictionary(sae.eval().requires_grad_(False), site, model.base)


def _shuffled(
    pool: Float[Tensor, "token d_model"], batch: int, seed: int
) -> Iterator[Float[Tensor, "batch d_model"]]:
    generator = torch.Generator().manual_seed(seed)
    whole = len(pool) // batch * batch
    while True:
        order = torch.randperm(len(pool), generator=generator)[:whole]
        for rows in rearrange(order, "(step batch) -> step batch", batch=batch):
            yield pool[rows]


def load(source: str, site: Site | None = None) -> Dictionary:
    """A dictionary from a folder, or of SAELens' catalogue as `release:id` (from the hub).

    Its site is the one its metadata name; `site` is for those that name none, and must agree where
    both do. Raises `InputError`.
    """
    said, where = describe(source), f"dictionary {source}"
    release, _, name = source.partition(":")
    SAE = sae_lens().SAE  # noqa: N806 (SAELens' name)
    with reading(where), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sae = SAE.from_pretrained(release, name) if said is None else SAE.load_from_disk(source)
    if any(not weight.isfinite().all() for weight in sae.state_dict().values()):
        raise InputError(f"{where}: holds values that are not finite")
    said = said or read_fields(_plain(sae.cfg), where)
    own = said.site or site
    if own is None:
        raise InputError(f"{where}: it names no site; give one (--layer)")
    found = Dictionary(sae.eval().requires_grad_(False), own, said.base, said.model)
    return found if site is None else found.at(site)


def describe(source: str) -> Statement | None:
    """What a dictionary says of itself, before anything loads; `None` for one of the catalogue.

    Raises `InputError` for what `load` would refuse by its words.
    """
    with reading(f"dictionary {source}"):
        if Path(source).is_dir():
            return read_folder(Path(source))
    if ":" not in source:
        raise InputError(f"dictionary {source}: neither a folder nor release:id")
    return None


def _plain(config: Any) -> dict[str, Any]:
    """A loaded configuration as what its file would say."""
    metadata = {name: config.metadata[name] for name in config.metadata.keys()}  # noqa: SIM118
    return {**config.to_dict(), "metadata": metadata}
