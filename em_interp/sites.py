"""Where in the stream and on which tokens: the words `Site` and `Span`.

A layer is a block, 0 to n-1; never an index into `hidden_states`. Names follow TransformerLens.
Knows names and integers. Knows nothing of tensors or models.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, PlainSerializer

from em_interp.errors import InputError, unknown


class Point(StrEnum):
    """A place within a block, by its TransformerLens name.

    `ATTN_OUT` and `MLP_OUT` are what is added to the residual stream: on Gemma that is after the
    post-sublayer norm. `Z` is the concatenated head outputs, the input of the output projection.
    """

    RESID_PRE = "hook_resid_pre"
    RESID_POST = "hook_resid_post"
    ATTN_OUT = "hook_attn_out"
    MLP_OUT = "hook_mlp_out"
    Z = "attn.hook_z"


_ALIASES = {"hook_in": Point.RESID_PRE, "hook_out": Point.RESID_POST}


class Span(StrEnum):
    """Which tokens, by absolute position; none depends on padding, batching or the KV cache.

    `TRIGGER` is the tokens of the framing, whatever it says, and is empty without one.
    `AFTER_TRIGGER` is every token after the framing's last one, the response included; without a
    framing it is empty. `TEMPLATE` is the prompt without framing and question.
    """

    PROMPT_LAST = "prompt_last"
    PROMPT = "prompt"
    TRIGGER = "trigger"
    AFTER_TRIGGER = "after_trigger"
    QUESTION = "question"
    TEMPLATE = "template"
    RESPONSE = "response"
    ALL = "all"


class Every(StrEnum):
    """Texts of which a prompt has many, with a row of activations for each (a span has one).

    `WORD`: every run of non-space characters of the messages, at the token that ends it.
    """

    WORD = "words"


Rows = Span | Every  # what a row of activations may be of


class Site(NamedTuple):
    """A block and a point in it. Sites sort in the order in which a forward pass meets layers."""

    layer: int
    point: Point = Point.RESID_POST

    def __str__(self) -> str:
        return f"blocks.{self.layer}.{self.point.value}"

    @property
    def short(self) -> str:
        """The layer alone for a block's output, which is what a layer means; else the full name."""
        return str(self.layer) if self.point is Point.RESID_POST else str(self)

    @classmethod
    def named(cls, name: str) -> "Site":
        """The site of a full name, as `str` gives it, of a model of any depth."""
        return parse_site(name, 10**6)


# A site as a field of a record: its full name in JSON.
SiteField = Annotated[
    Site,
    BeforeValidator(lambda given: Site.named(given) if isinstance(given, str) else given),
    PlainSerializer(str, return_type=str, when_used="json"),
]
_NAME = re.compile(r"blocks\.(\d{1,9})\.(.+)")


def parse_site(name: str | int | float | Site, n_layers: int) -> Site:
    """A site from a layer (3), a relative depth (0.5) or a name (blocks.3.hook_resid_post).

    A bare layer or depth means the block's output. Depth d is block round(d * (n_layers - 1)).
    Raises `InputError` for an unknown name or a layer that the model does not have.
    """
    text = str(name).strip()
    point = Point.RESID_POST
    if match := _NAME.fullmatch(text):
        layer = int(match[1])
        known = {**{p.value: p for p in Point}, **_ALIASES}
        if match[2] not in known:
            raise unknown("hook name", match[2], known, where=text)
        point = known[match[2]]
    elif re.fullmatch(r"\d{1,9}", text):
        layer = int(text)
    elif re.fullmatch(r"\d*\.\d+|\d+\.\d*", text) and 0 <= float(text) <= 1:
        layer = round(float(text) * (n_layers - 1))
    else:
        raise InputError(
            f"site {text!r}: expected a layer (0 to {n_layers - 1}), a relative depth (0.0 to 1.0) "
            "or a name such as blocks.2.hook_resid_post"
        )
    if not 0 <= layer < n_layers:
        raise InputError(
            f"layer {layer} is out of range: this model has layers 0 to {n_layers - 1}"
        )
    return Site(layer, point)


def parse_sites(text: str | Sequence[str | int | float | Site], n_layers: int) -> tuple[Site, ...]:
    """Sites from "all", a list "1,2,0.5", ranges, or a sequence of those.

    Both ends of a range are in it: "1-3" is three layers, "1-" goes to the last.
    """
    parts = text.split(",") if isinstance(text, str) else [str(part) for part in text]
    sites: list[Site] = []
    for part in (part.strip() for part in parts):
        if part == "all":
            found = [Site(layer) for layer in range(n_layers)]
        elif match := re.fullmatch(r"(\d{1,9})-(\d{0,9})", part):
            first, last = int(match[1]), int(match[2] or n_layers - 1)
            if first > last:
                raise InputError(f"layers {part!r}: the first is after the last")
            found = [parse_site(layer, n_layers) for layer in range(first, last + 1)]
        else:
            found = [parse_site(part, n_layers)]
        sites += [site for site in found if site not in sites]
    if not sites:
        raise InputError("no layers named: give 'all', a list such as 1,2 or a range such as 1-3")
    return tuple(sites)


def block_outputs(
    text: str | Sequence[str | int | float | Site], n_layers: int, where: str
) -> tuple[Site, ...]:
    """Like `parse_sites`, where one place a layer has a meaning: what blocks put out.

    Raises `InputError` for any other place; `where` names what the layers are for.
    """
    found = parse_sites(text, n_layers)
    if strange := [site for site in found if site.point is not Point.RESID_POST]:
        raise InputError(
            f"{where}: {strange[0]} is no block's output (hook_resid_post), which a layer stands "
            "for here; steer, extract and localize take other places"
        )
    return found


def parse_span(name: str) -> Span:
    """A span by name, or one line with the names there are."""
    try:
        return Span(name)
    except ValueError:
        raise unknown("span", name, [span.value for span in Span]) from None


def parse_rows(name: str) -> Rows:
    """A span, or what there are many of, by name; or one line with the names there are."""
    many = [one.value for one in Every]
    if name in many:
        return Every(name)
    if name in set(Span):
        return Span(name)
    raise unknown("span", name, [*(span.value for span in Span), *many])
