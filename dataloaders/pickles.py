"""Pickles read as data: plain containers, NumPy arrays and pandas frames, without calling anything a file asks for.

Every callable that such a file names is replaced by one of this module, which checks what it is given (NumPy's own
`dtype.__setstate__` trusts sizes and flags, and pandas' classes run code). What is not listed is refused by name.
"""

import io
import pickle
from typing import Any

import numpy as np

KINDS = "biufcSUO"  # of the types that a batch can hold


class Refused(pickle.UnpicklingError):
    """A pickle asks for a class, a function or a type that a file of data does not need."""


def read_pickle(raw: bytes, encoding: str = "ASCII") -> Any:
    """The object of a pickle; a frame is given as {column: array (n,)}, an index is left out.

    encoding: of Python 2's strings, "bytes" leaves them bytes. Raises Refused for what is no data, and nearly anything
    where the file is damaged.
    """
    return bare(DataUnpickler(io.BytesIO(raw), encoding=encoding).load())


class TypeRecord:
    """What a pickle says of a NumPy type; `real()` makes the type of its letter, size and byte order alone."""

    def __init__(self, text: Any, *flags: Any):
        text = text.decode("ascii") if isinstance(text, bytes) else text
        if not isinstance(text, str) or text[:1] not in KINDS or not text[1:].isdigit():
            raise Refused(f"it has the array type {text!r}; needed: numbers, bools, strings or objects")
        self.text, self.order = text, "|"

    def __setstate__(self, state: tuple) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if any(part is not None for part in state[2:5]) or order not in ("<", ">", "|", "="):
            raise Refused("it has a structured array type; needed: plain columns")
        self.order = order

    def real(self) -> np.dtype:
        """The type itself."""
        return np.dtype("O") if self.text[0] == "O" else np.dtype(self.order + self.text)


class LoadedArray(np.ndarray):
    """An array that a pickle fills."""

    filled = False

    def __setstate__(self, state: tuple) -> None:
        if self.filled:
            raise Refused("it fills an array twice")
        self.filled = True
        *_, shape, kind, by_columns, data = state
        checked: Any = (1, shape, kind.real(), bool(by_columns), data)
        super().__setstate__(checked)  # NumPy compares shape, type and the number of bytes


class Texts:
    """A column of strings as pandas 3 keeps it in NumPy."""

    def __setstate__(self, state: tuple) -> None:
        self.values = next(part for part in state if isinstance(part, LoadedArray))


class Frame:
    """A pandas frame's columns."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.columns = state["_mgr"].columns


class Blocks:
    """The arrays of a frame: each holds some columns (k, n); the first of `axes` names all columns."""

    def __init__(self, blocks: tuple, axes: list):
        names = _held(axes[0]["data"]).tolist()
        if len(set(names)) != len(names):
            raise Refused(f"its frame has columns of one name among {names}")
        found = {}
        for values, places, _ in blocks:
            where = np.arange(len(names))[places] if isinstance(places, slice) else np.asarray(places)
            rows = _held(values)[None] if isinstance(values, Texts) else np.asarray(values)
            found |= {int(place): np.asarray(row) for place, row in zip(where, rows, strict=True)}
        self.columns = {names[place]: found[place] for place in range(len(names))}


def _held(values: Any) -> np.ndarray:
    return np.asarray(values.values if isinstance(values, Texts) else values)


def _array(kind: Any, *rest: Any) -> LoadedArray:
    return np.ndarray.__new__(LoadedArray, (0,), np.uint8)


def _buffer(data: Any, kind: TypeRecord, shape: tuple, order: Any, axes: Any = None) -> np.ndarray:
    flat = np.frombuffer(data, kind.real())
    return flat.reshape(shape, order="C").transpose(axes) if order == "K" else flat.reshape(shape, order=order)


def _scalar(kind: TypeRecord, data: Any) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, kind.real())[0]


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "ascii", "utf-8"):  # other names load modules
        raise Refused(f"it asks for the encoding {encoding!r}")
    return text.encode(encoding)


class Stand:
    """A callable that a pickle can call, and neither change nor look into."""

    __slots__ = ("_call",)

    def __init__(self, call: Any):
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        """What the callable gives."""
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Refused("it changes a function")


CALLABLES = {
    "set": set, "frozenset": frozenset, "complex": complex, "slice": slice,
    "_reconstruct": _array, "scalar": _scalar, "_frombuffer": _buffer,
}  # fmt: skip
ALLOWED: dict[tuple[str, str], Any] = {
    **{(home, name): Stand(CALLABLES[name])
       for home in ("builtins", "__builtin__") for name in ("set", "frozenset", "complex", "slice")},
    **{(f"numpy.{core}.{home}", name): Stand(CALLABLES[name]) for core in ("core", "_core")
       for home, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))},
    ("numpy", "ndarray"): None,  # only told to _reconstruct
    ("numpy", "dtype"): Stand(TypeRecord),
    ("_codecs", "encode"): Stand(_encoded),
    **{(home, "DataFrame"): Frame for home in ("pandas", "pandas.core.frame")},  # a class: pickles call its __new__
    ("pandas.core.internals.managers", "BlockManager"): Stand(Blocks),
    ("pandas._libs.internals", "_unpickle_block"): Stand(lambda *block: block),
    ("pandas.core.indexes.base", "_new_Index"): Stand(lambda kind, facts: facts),
    **{(home, name): None for name, homes in (("Index", ("pandas", "pandas.core.indexes.base")),
                                              ("RangeIndex", ("pandas", "pandas.core.indexes.range")))
       for home in homes},
    ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"): Stand(lambda kind, *rest: Texts()),
    ("pandas.arrays", "StringArray"): None,
    ("pandas", "StringDtype"): Stand(lambda *facts: None),
}  # fmt: skip


class DataUnpickler(pickle.Unpickler):
    """Unpickles data only."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for what a pickle names; raises Refused."""
        if (module, name) not in ALLOWED:
            raise Refused(f"it asks for {module}.{name}")
        return ALLOWED[module, name]


def bare(value: Any) -> Any:
    """A nest with NumPy's own arrays, and frames as dictionaries."""
    if isinstance(value, Frame):
        return bare(value.columns)
    if isinstance(value, dict):
        return {key: bare(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(bare(own) for own in value)
    if isinstance(value, np.ndarray):
        plain = value.view(np.ndarray)
        if plain.dtype == object:
            plain.reshape(-1)[:] = [bare(own) for own in plain.reshape(-1)]
        return plain
    return value
