"""Spectra kept in files: written part by part in bounded memory, read as memory maps."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.eis import COLUMNS, Spectra
from runtime.errors import UsageError
from runtime.op import NumpyBatch

CHUNK = 4096  # rows drawn at once
PLAN = "data.json"


def columns(points: int) -> dict[str, tuple[int, int]]:
    """Where the parts of a row lie in its line of numbers, {key: (start, stop)}."""
    sizes = {"x": points * COLUMNS, "target": 5, "known": 5, "known_mask": 5, "candidate": 5, "residual": 1}
    ends = np.cumsum([*sizes.values()]).tolist()
    return {key: (end - size, end) for (key, size), end in zip(sizes.items(), ends, strict=True)}


def write(folder: Path, options: Mapping[str, Any], draws: int = 0, part: int = 50_000) -> tuple[int, int]:
    """Writes the spectra that dataloaders.eis.Spectra(**options) draws with seed `draws`: exactly its `size` of them.

    Files 00000.npy, ... of `part` float32 lines each, the last shorter, and data.json, which says what they are. Parts
    that are there are kept, so that an interrupted call goes on where it stopped; each part is the same whether the
    others were written before or not. Returns how many rows were written and how many were there. Raises UsageError
    where the folder holds other data.
    """
    if part < 1:
        raise UsageError(f"a part needs at least 1 row, got {part}.")
    source = Spectra(**options)
    plan = {"options": dict(options), "draws": draws, "rows": len(source), "part": part, "points": source.most,
            "columns": columns(source.most)}  # fmt: skip
    plan = json.loads(json.dumps(plan))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PLAN
    if file.exists():
        if words := _difference(json.loads(file.read_text()), plan):
            raise UsageError(f"{folder} holds other spectra ({words}); give another folder or delete it.")
    elif any(folder.iterdir()):
        raise UsageError(f"{folder} holds other files and no {PLAN}; give an empty or a new folder.")
    else:
        file.write_text(json.dumps(plan, indent=2) + "\n")
    made = 0
    for number, path, rows in _parts(folder, plan):
        if not path.exists():
            _write_part(path, source, np.random.default_rng([draws, number]), rows)
            made += rows
    return made, len(source) - made


def _parts(folder: Path, plan: Mapping[str, Any]) -> Iterator[tuple[int, Path, int]]:
    """Number, file and rows of every part."""
    for number, start in enumerate(range(0, plan["rows"], plan["part"])):
        yield number, folder / f"{number:05d}.npy", min(plan["part"], plan["rows"] - start)


def _write_part(path: Path, source: Spectra, rng: np.random.Generator, rows: int) -> None:
    """One file, whole or not at all."""
    width = columns(source.most)["residual"][1]
    partial = path.with_suffix(".partial")
    with partial.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": (rows, width)})
        for start in range(0, rows, CHUNK):
            batch = source.draw(min(CHUNK, rows - start), rng)
            lines = [np.asarray(batch[key], "<f4").reshape(len(batch["x"]), -1) for key in columns(source.most)]
            out.write(np.concatenate(lines, axis=1).tobytes())
    partial.replace(path)


def _difference(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """How two plans differ, in words; "" where they don't."""
    pairs = {name: (held.get(name), asked[name]) for name in ("rows", "draws", "part") if name in asked}
    own, other = held.get("options", {}), asked["options"]
    pairs |= {name: (own.get(name), other.get(name)) for name in sorted({*own, *other})}
    return ", ".join(f"{name} {a} there, {b} asked for" for name, (a, b) in pairs.items() if a != b)


class StoredSpectra(Spectra):
    """The spectra that `write` left in `folder`; the other arguments are those of Spectra and must be the same.

    Raises UsageError where they are not, or where parts are missing.
    """

    def __init__(self, folder: str, **options: Any):
        super().__init__(**options)
        place = Path(folder)
        if not (place / PLAN).exists():
            raise UsageError(f"there are no spectra in {place} (no {PLAN}); scripts/eis_pipeline.py --mode generate "
                             "writes them.")  # fmt: skip
        plan = json.loads((place / PLAN).read_text())
        if words := _difference(plan, json.loads(json.dumps({"options": options}))):
            raise UsageError(f"the spectra in {place} are others than the configuration's: {words}.")
        files = [path for _, path, _ in _parts(place, plan)]
        if missing := [path.name for path in files if not path.exists()]:
            raise UsageError(f"{place} lacks {len(missing)} of {len(files)} parts, the first {missing[0]}; generate "
                             "again, it goes on where it stopped.")  # fmt: skip
        self.folder, self._part = folder, plan["part"]
        self._files = [np.load(path, mmap_mode="r") for path in files]

    def take(self, indices: np.ndarray, rng: np.random.Generator) -> NumpyBatch:
        """The rows themselves."""
        number, place = np.divmod(indices, self._part)
        lines = np.empty((len(indices), self._files[0].shape[1]), np.float32)
        for which in np.unique(number):
            own = number == which
            lines[own] = self._files[which][place[own]]
        found = {key: lines[:, start:stop] for key, (start, stop) in columns(self.most).items()}
        found |= {"x": found["x"].reshape(-1, *self.shape), "residual": found["residual"][:, 0]}
        return {key: np.ascontiguousarray(value) for key, value in found.items()}
