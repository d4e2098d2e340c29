"""What a template's values and operations cost, said before they are there.

A kind for every filter and method that a template can name, and a size for every value.
Knows Jinja's plain values. Knows nothing of templates or tokenizers.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from jinja2.runtime import Macro, Undefined
from jinja2.utils import Namespace

PLAIN = 1 << 21  # characters that any template may handle; the families' handle some thousands
EACH = 64  # and so many more for each character that it is given
STEP = 16  # what a turn of a loop, a call or an operation costs beside what it handles
LONGEST = 1 << 16  # characters of a template; the families' have up to 20,000
BITS = 1 << 13  # of a whole number

# What a filter or a method of a plain value does to sizes: `free` ones look at a value without
# going through it, `linear` ones give at most a few times what they are given, `wide` ones as much
# as a number says. Those of `Meter.using` have a rule each. No chat template needs the rest.
FILTERS = {
    "free": "length count first last default d list reverse items attr safe random",
    "linear": """abs capitalize dictsort e escape filesizeformat float forceescape groupby int lower
        map max min reject rejectattr select selectattr sort string title trim truncate unique upper
        urlencode wordcount""",
    "wide": "center batch slice round",
    "ruled": "replace join indent tojson format sum",
    "refused": "pprint striptags urlize wordwrap xmlattr",
}
METHODS = {
    "free": "items keys values get copy bit_count bit_length conjugate is_integer",
    "linear": """capitalize casefold count endswith find index isalnum isalpha isascii isdecimal
        isdigit isidentifier islower isnumeric isprintable isspace istitle isupper lower lstrip
        partition removeprefix removesuffix rfind rindex rpartition rsplit rstrip split splitlines
        startswith strip swapcase title upper as_integer_ratio hex""",
    "wide": "center ljust rjust zfill",
    "ruled": "replace join expandtabs format format_map",
    "refused": """translate maketrans encode to_bytes from_bytes fromhex fromkeys append clear
        extend insert pop popitem remove setdefault update reverse sort""",
}
IDLE = frozenset({  # tests that do not go through a value
    "defined", "undefined", "none", "boolean", "false", "true", "callable", "filter", "test",
    "iterable", "mapping", "number", "integer", "float", "sequence", "string", "sameas", "escaped",
    "even", "odd",
})  # fmt: skip
KINDS = {  # a filter's or method's kind, by sign and name
    sign + name: kind
    for sign, table in (("|", FILTERS), (".", METHODS))
    for kind, names in table.items()
    for name in names.split()
}
VALUES = (str, list, tuple, dict, int, float)


class OverspentError(Exception):
    """A template wants more than it may have; says what, to follow "its chat template"."""


class Weight(NamedTuple):
    """A value's size: characters when written out, values within, largest number, depth."""

    text: int
    parts: int
    widest: int
    depth: int


class Meter:
    """What a rendering may still spend."""

    def __init__(self, budget: int) -> None:
        self.left = budget
        self.shown = 0  # characters and pieces written so far

    def spend(self, much: int) -> None:
        """Pay. Raises `OverspentError` once there is not enough, and ever after."""
        self.left -= much
        if self.left < 0:
            raise OverspentError("loops for too long or builds too large a text")

    def weigh(self, value: Any) -> Weight:
        """A value's size. Each of its parts is paid for, and a size beyond the budget refused.

        A list twice in a list is one part and two texts: 40 such lists are 2⁴⁰ characters.
        """
        if isinstance(value, str):  # nearly always
            return Weight(len(value) + 1, 1, 0, 0)
        known: dict[int, Weight | None] = {}

        def of(value: Any) -> Weight:
            if isinstance(value, str):
                return Weight(len(value) + 1, 1, 0, 0)
            if isinstance(value, int):
                return Weight(value.bit_length() // 3 + 5, 1, abs(value), 0)
            inner: Any
            if isinstance(value, Mapping):
                inner = chain.from_iterable(value.items())
            elif isinstance(value, Namespace):
                inner = chain.from_iterable(
                    object.__getattribute__(value, "_Namespace__attrs").items()
                )
            elif isinstance(value, Collection) and not isinstance(value, range | Undefined | Macro):
                inner = value
            else:
                return Weight(25, 1, 0, 0)
            if id(value) in known:
                if (found := known[id(value)]) is None:
                    raise OverspentError("builds a value that holds itself")
                return found
            known[id(value)] = None
            text, parts, widest, depth = 2, 1, 0, 0
            for one in inner:
                self.spend(STEP // 4)
                found = of(one)
                text, parts = text + found.text + 2, parts + found.parts
                widest, depth = max(widest, found.widest), max(depth, found.depth)
                if text > self.left:
                    self.spend(text)
            made = known[id(value)] = Weight(text, parts, widest, depth + 1)
            return made

        return of(value)

    def read(self, value: Any) -> Any:
        """Pay for a value that is written out or compared; hand it on."""
        self.spend(STEP // 2 + (len(value) if type(value) is str else self.weigh(value).text))
        return value

    def made(self, value: Any) -> Any:
        """Pay for a value that was just made; hand it on."""
        if isinstance(value, str):
            self.spend(len(value))
        elif isinstance(value, int):
            if value.bit_length() > BITS:
                raise OverspentError("reckons with too large a number")
        elif isinstance(value, Iterator):
            return self.stepped(value)
        elif isinstance(value, Collection):
            self.weigh(value)
        return value

    def stepped(self, values: Iterator[Any]) -> Iterator[Any]:
        """Values that are made one by one, each paid for when it is."""
        for value in values:
            self.spend(STEP)
            yield value

    def formatted(self, text: str, sign: str, values: Any) -> None:
        """Pay for a text with values put in before they are: `%` or `{` is the sign of a place."""
        numbers = re.findall(r"\d+", text)
        if any(len(one) > 6 for one in numbers):
            raise OverspentError("pads a text to too great a width")
        size = self.weigh(values)
        chosen = "*" in text if sign == "%" else re.search(r"\{[^{}]*\{", text) is not None
        each = size.text + (size.widest if chosen else 0)
        self.spend(len(text) + sum(map(int, numbers)) + text.count(sign) * each)

    def using(self, table: str, name: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Pay for a filter (`|`) or a method (`.`), its value first; what to call it with.

        Arguments may come in any order, so a rule takes the worse one.
        """
        self.spend(STEP)
        kind = KINDS.get(table + name, "refused")
        if kind == "refused":
            raise OverspentError(f"uses {name!r}, which no chat template needs")
        if kind == "free":
            return values
        if name == "join":
            at = 0 if table == "|" else 1
            values = tuple(
                tuple(self.stepped(one)) if n == at and isinstance(one, Iterator) else one
                for n, one in enumerate(values)
            )
        value, *others = values
        size, more = self.weigh(value), [self.weigh(one) for one in others]
        given, widest = sum(one.text for one in more), max((one.widest for one in more), default=0)
        self.spend(size.text + given)
        match name:
            case _ if kind == "wide":
                self.spend(widest)
            case "replace":
                self.spend(max((str(value).count(str(one)) for one in others), default=0) * given)
            case "join":
                joined = value if table == "|" else others[0] if others else ()
                count = len(joined) if hasattr(joined, "__len__") else 0
                self.spend(count * (given if table == "|" else size.text))
            case "indent":
                self.spend((len(str(value).splitlines()) + 1) * (given + widest))
            case "expandtabs":
                self.spend(value.count("\t") * (8 + widest))
            case "tojson":
                self.spend(size.parts * size.depth * (given + widest))
            case "format" | "format_map":
                self.formatted(str(value), "%" if table == "|" else "{", others)
            case "sum" if not all(isinstance(one, int | float | str) for one in others):
                raise OverspentError("adds up what are no numbers")
        return values
