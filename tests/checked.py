"""The type checker that the test run puts on annotated functions (see conftest)."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

# As in PEP 484, an int will do where a float is asked for.
_checked: Callable[..., Any] = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function's arguments and result, unless it is made anew in every call (a visitor).

    Checking those would compile a wrapper for each site of each pass.
    """
    return function if "<locals>" in function.__qualname__ else _checked(function)
