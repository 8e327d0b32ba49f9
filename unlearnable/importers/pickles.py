"""Arrays out of a pickle: the only place of this package that opens one.

No unpickler runs. The opcodes are taken one by one, and nothing that they name is ever looked up:
names on a short list become labels, and calls of them records of the call, from which arrays are
put together. Every other name, and every opcode but those of arrays, lists, tuples and dicts of
them, is an error.
"""

from __future__ import annotations

import math
import mmap
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ArtefactError

DTYPES = ("i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8")
_OPCODES = 300  # at most, and as many as _EACH for each array; numpy needs some 40
_EACH = 100
_DEEPEST = 4  # lists and dicts in one another
_VALUES = {
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NAMES = (
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",  # integers of numpy, as keys of a dict
    "numpy._core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "collections.OrderedDict",
    "_codecs.encode",  # how protocol 2 writes bytes
)


class _Refused(Exception):
    """A pickle holds something else."""


class _Incomplete(Exception):
    """Shape and bytes of an array do not belong together."""


class _Type(Exception):
    """An array of neither integers nor floats."""


class _Name(NamedTuple):
    name: str


class _Call:
    """A call that a pickle asks for, and the state that it then sets; neither is carried out."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments, self.state = name, arguments, None


class _Pairs(list[Any]):
    """Keys and values of a dict, as a pickle lists them; nothing is hashed."""


def read_pickle(path: Path, most: int, offset: int = 0) -> Any:
    """Like :func:`read_pickled`, for a pickle that starts at ``offset`` of a file."""
    # A mapped file gives no more bytes than it has, whatever length a pickle claims.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.seek(offset)
        return read_pickled(data, path, most)


def read_pickled(data: Any, path: Path, most: int) -> Any:
    """Reads the arrays of a pickle: one, or lists and dicts of them, possibly with plain values.

    Reads the open file ``data`` and refuses more opcodes than ``most`` arrays need. Raises
    ``ArtefactError`` for a pickle of anything else, without running any of it, and ``ValueError``
    for arrays of other types.
    """
    try:
        most = _OPCODES + _EACH * most
        found = _plain(_described(data, most), iter(range(most)))
        if not isinstance(found, (np.ndarray, list, dict)):
            raise _Refused("it contains something else")
        return found
    except _Incomplete as error:
        raise ArtefactError(f"expected a complete array in {path}, got {error}") from error
    except _Type as error:
        raise ValueError(
            f"expected an array of integers or floats in {path}, got one of type {error}"
        ) from error
    except Exception as error:  # a foreign file may go wrong in any way
        raise ArtefactError(
            f"expected a pickle of only a NumPy array, or a list or dict of arrays, in {path}: "
            f"{error}; none of its code was run. If you trust the file, load it yourself and save "
            f"the array with numpy.save"
        ) from error


def _described(data: Any, most: int) -> Any:
    """What the opcodes of a pickle describe."""
    stack: list[Any] = []
    marks: list[int] = []  # places in the stack
    memo: dict[int, Any] = {}

    def above_mark() -> list[Any]:
        return taken(len(stack) - marks.pop())

    def taken(count: int) -> list[Any]:
        place = len(stack) - count
        values = stack[place:]
        del stack[place:]
        return values

    for number, (opcode, found, _) in enumerate(pickletools.genops(data)):
        name, argument = opcode.name, cast(Any, found)
        if number > most:
            raise _Refused(f"it has more than {most:,} opcodes")
        if name in _VALUES:
            stack.append(_CONSTANTS.get(name, argument))
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _TUPLES:
            stack.append(tuple(taken(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(above_mark()))
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else _Pairs())
        elif name in ("APPEND", "SETITEM", "APPENDS", "SETITEMS"):
            few = {"APPEND": 1, "SETITEM": 2}.get(name)
            values = above_mark() if few is None else taken(few)
            _extend(stack[-1], values, name.startswith("SET"))
        elif name == "GLOBAL":
            stack.append(_named(argument.replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_named(f"{module:.80}.{attribute:.80}"))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            if type(called) is not _Name or type(arguments) is not tuple:
                raise _Refused("it calls something else")
            ordered = called.name == "collections.OrderedDict" and not arguments
            stack.append(_Pairs() if ordered else _Call(called.name, arguments))
        elif name == "BUILD":
            state = stack.pop()
            if type(stack[-1]) is not _Call or stack[-1].state is not None:
                raise _Refused("it sets the state of something else")
            stack[-1].state = state
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            above_mark()
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"its opcode {number} is {name}")
    raise _Refused("it has no end")


def _named(name: str) -> _Name:
    if name not in _NAMES:
        raise _Refused(f"it names {name:.160}")
    return _Name(name.removeprefix("numpy.core.").removeprefix("numpy._core."))


def _extend(target: Any, values: list[Any], pairs: bool) -> None:
    if type(target) is not (_Pairs if pairs else list) or (pairs and len(values) % 2):
        raise _Refused("it fills something other than a list or dict")
    target += zip(values[::2], values[1::2], strict=True) if pairs else values


def _plain(found: Any, left: Iterator[int], depth: int = 0) -> Any:
    """What was described, with arrays in place of the calls that make them.

    Takes one of ``left`` for each, since few opcodes can name one list many times in many others.
    """
    if depth > _DEEPEST or next(left, None) is None:
        raise _Refused("it contains lists nested too deeply")
    if type(found) is _Pairs:
        return {_key(key): _plain(value, left, depth + 1) for key, value in found}
    if type(found) in (list, tuple):
        return [_plain(value, left, depth + 1) for value in found]
    if found is None or type(found) in (bool, int, float, str):
        return found
    if (number := _scalar(found)) is not None:
        return number
    return _array(found, left, depth)


def _key(found: Any) -> str | int:
    if type(found) in (str, int):
        return found
    if type(number := _scalar(found)) is int:
        return number
    raise _Refused("it has a dict with keys other than text and integers")


def _scalar(found: Any) -> int | float | None:
    """A number of numpy's, or None if it is none."""
    if type(found) is _Call and found.name == "multiarray.scalar" and len(found.arguments) == 2:
        dtype, data = _dtype(found.arguments[0]), _bytes(found.arguments[1])
        if dtype[1:] in DTYPES and isinstance(data, bytes):
            number: int | float = np.frombuffer(data, dtype)[0].item()
            return number
    return None


def _array(found: Any, left: Iterator[int], depth: int) -> Any:
    """The array of a call, a view of the pickle's bytes; or what an array of objects holds."""
    if type(found) is not _Call:
        raise _Refused("it contains something else")
    axes: Any = None
    match found.arguments:
        case (_Name(name="numpy.ndarray"), *_) if found.name == "multiarray._reconstruct":
            match found.state:
                case (_, shape, dtype, fortran, data):
                    order: Any = "F" if fortran else "C"
                case _:
                    raise _Refused("it contains something else")
        case (data, dtype, shape, "K", axes) if found.name == "numeric._frombuffer":
            order = "C"
        case (data, dtype, shape, ("C" | "F") as order, *_) if found.name == "numeric._frombuffer":
            pass
        case _:
            raise _Refused("it contains something else")
    code = _dtype(dtype)
    if code == "|O" and type(data) is list:
        match shape, data:
            case (), [held]:  # of numpy.save(file, a_dict)
                return _plain(held, left, depth + 1)
            case (int(count),), [*_] if count == len(data):
                return _plain(data, left, depth + 1)
        raise _Refused("its array of objects is not a list of arrays")
    if code[:1] not in "<>|=" or code[1:] not in DTYPES:
        raise _Type(f"{code:.80}")
    data = _bytes(data)
    sound = _is_shape(shape) and isinstance(data, (bytes, bytearray))
    if not sound or len(data) != math.prod(shape) * np.dtype(code).itemsize:
        raise _Incomplete("another shape")
    array: NDArray[Any] = np.frombuffer(data, code).reshape(shape, order=order)
    return array.transpose(axes) if _is_shape(axes) else array


def _is_shape(found: Any) -> bool:
    return type(found) is tuple and all(type(side) is int and side >= 0 for side in found)


def _dtype(found: Any) -> str:
    if type(found) is _Call and found.name == "numpy.dtype":
        match found.arguments, found.state or (3, "|", None, None, None, -1, -1, 0):
            case (str(code), *_), (_, str(order), None, None, None, _, _, _):
                return "|O" if code.startswith("O") else order + code
    raise _Refused("its array contains records")


def _bytes(found: Any) -> Any:
    if type(found) is _Call and found.name == "_codecs.encode":
        match found.arguments:
            case (str(text), "latin1"):
                return text.encode("latin1")
    return found
