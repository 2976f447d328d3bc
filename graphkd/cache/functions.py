"""What tells one function from another, for fingerprints."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any

import numpy as np
from torch import Tensor, nn

from graphkd import kept
from graphkd.sources import Derived

PLAIN = (Tensor, np.ndarray, bool, int, float, str, bytes)
"""What a digest is made of, and nothing further."""


def described(function: Any) -> str:
    """A function in a word, and a digest that tells it from others.

    The digest covers code, defaults and enclosed values; of a module its weights; of another object what its ``repr``
    says or, where that is only its place in memory, its attributes and the code of its call. It does not cover what is
    found by a global name. The code is that of this version of Python.

    Raises:
        ValueError: For objects of which none of this can be had.

    >>> described(lambda output: output["feat"]) == described(lambda output: output["tokens"])
    False
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{name} {kept.data_fingerprint([_plain(function)])['data']}"


def _plain(value: Any) -> Any:
    """Nested plain values that stand for a function and for all that it encloses."""
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, CodeType):
        return [value.co_code, list(value.co_names), [_plain(each) for each in value.co_consts]]
    if isinstance(value, FunctionType):
        enclosed = [cell.cell_contents for cell in value.__closure__ or ()]
        return [_plain(each) for each in (value.__code__, value.__defaults__, value.__kwdefaults__, enclosed)]
    if isinstance(value, BuiltinFunctionType):
        return value.__qualname__
    if isinstance(value, partial):
        return [_plain(each) for each in (value.func, value.args, value.keywords)]
    if isinstance(value, nn.Module):
        return kept.model_fingerprint(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    if isinstance(value, frozenset | set):
        return sorted(map(repr, value))
    if " at 0x" not in repr(value):
        return repr(value)
    call = getattr(type(value), "__call__", None)  # noqa: B004
    if not isinstance(call, FunctionType):
        raise ValueError(
            f"a teacher cache needs features by module path, or functions that can be told apart, got {value!r}"
        )
    sources = value.sources if isinstance(value, Derived) else ()
    return [type(value).__qualname__, _plain(call), _plain(sources), _plain(vars(value))]
