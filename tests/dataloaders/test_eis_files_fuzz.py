"""Mutated instruments' files and random bytes: the reader gives spectra or a sentence, and soon."""

import time
import warnings

import numpy as np
import pytest

from dataloaders.eis_files import read
from runtime.errors import UsageError
from tests.dataloaders.eis_file_formats import FILES

SEEDS = [build() for _, build, _ in FILES.values()]
TOKENS = ["nan", "inf", "-inf", "1e999", "-1e-999", "1e300", "0", "-0.0", "", "-", "#N/A", '"', "''", "Ω", "µ",
          "1,5", "1.5.2", "1_000", "١٢", "0x1F", "1d5", "(", ")", "[Ohm]", "freq/Hz", "-Z''", "|Z|", "phase", "kOhm",
          "1+2j", "\x00", "\x1b[31m", "\ufeff", "9" * 400, "a" * 3000, "−", "\\", ";", "\t", ","]  # fmt: skip
CODES = ["utf-8", "latin-1", "utf-16", "utf-16-le", "utf-32", "cp037", "shift_jis"]
MOST_SECONDS = 1.0


def bytes_changed(data: bytes, rng: np.random.Generator) -> bytes:
    values = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(len(values), size=1 + rng.integers(8))
    values[places] ^= rng.integers(1, 256, len(places), dtype=np.uint8)
    return values.tobytes()


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = sorted(rng.integers(len(data) + 1, size=2))
    return data[start:] if rng.random() < 0.3 else data[:end] if rng.random() < 0.6 else data[:start] + data[end:]


def lines_moved(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.split(b"\n")
    some = rng.integers(len(lines), size=rng.integers(1, len(lines) + 1))
    how = rng.integers(4)
    if how == 0:  # drawn with repetition
        return b"\n".join(lines[i] for i in some)
    if how == 1:
        return b"\n".join(lines[i] for i in rng.permutation(len(lines)))
    if how == 2:  # doubled
        at = int(some[0])
        return b"\n".join(lines[:at] + lines[at : at + int(rng.integers(1, 40))] * int(rng.integers(2, 6)) + lines[at:])
    return b"\n".join(line for i, line in enumerate(lines) if i not in set(some[: 1 + len(some) // 4].tolist()))


def columns_moved(data: bytes, rng: np.random.Generator) -> bytes:
    mark = [b",", b"\t", b";", b" "][int(rng.integers(4))]
    order = rng.permutation(12)
    gone = {int(rng.integers(12))} if rng.random() < 0.5 else set()
    lines = []
    for line in data.split(b"\n"):
        cells = line.split(mark)
        places = [i for i in order if i < len(cells) and i not in gone] if rng.random() < 0.98 else range(len(cells))
        lines.append(mark.join(cells[i] for i in places))
    return b"\n".join(lines)


def cells_changed(data: bytes, rng: np.random.Generator) -> bytes:
    token = TOKENS[int(rng.integers(len(TOKENS)))].encode()
    mark = [b",", b"\t", b";", b" ", b"\n"][int(rng.integers(5))]
    cells = data.split(mark)
    for at in rng.integers(len(cells), size=1 + rng.integers(4)):
        cells[at] = token if rng.random() < 0.6 else cells[at] + token if rng.random() < 0.5 else token + cells[at]
    return mark.join(cells)


def marks_exchanged(data: bytes, rng: np.random.Generator) -> bytes:
    marks = [b",", b"\t", b";", b" ", b".", b"-", b"e", b"E", b"'", b'"', b"\n", b"\r\n", b"0", b"1", b"(", b""]
    old, new = (marks[int(i)] for i in rng.integers(len(marks), size=2))
    return data.replace(old or b",", new, -1 if rng.random() < 0.6 else int(rng.integers(1, 30)))[:60_000]


def encoded(data: bytes, rng: np.random.Generator) -> bytes:
    source, target = (CODES[int(i)] for i in rng.integers(len(CODES), size=2))
    return data.decode(source, "replace").encode(target, "replace")


def joined(data: bytes, rng: np.random.Generator) -> bytes:
    return data + SEEDS[int(rng.integers(len(SEEDS)))]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    alphabet = [
        bytes(range(256)),
        b"0123456789.,-+eE\t; \n",
        b"fZ'\"|/()HzOhmRei,;\t\n -0123456789.",
        bytes(range(32, 127)),
    ]
    values = np.frombuffer(alphabet[int(rng.integers(4))], np.uint8)
    return rng.choice(values, int(rng.integers(1, 3000))).tobytes()


CHANGES = (bytes_changed, cut, lines_moved, columns_moved, cells_changed, marks_exchanged, encoded, joined)


def mutated(number: int) -> bytes:
    """The input of a number, always the same."""
    rng = np.random.default_rng(number)
    data = SEEDS[number % len(SEEDS)]
    if rng.random() < 0.05:
        return noise(data, rng)
    for _ in range(rng.geometric(0.6)):
        if data:
            data = CHANGES[int(rng.integers(len(CHANGES)))](data, rng)
    return data


def survives(first: int, last: int, folder) -> tuple[int, float]:
    """How many inputs were read, and the slowest one's seconds; raises for anything but spectra or a sentence."""
    count, slowest, path = 0, 0.0, folder / "input.dat"
    for number in range(first, last):
        path.write_bytes(mutated(number))
        start = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = read(path)
            assert found and all(len(one.z) >= 5 and np.isfinite(one.z).all() for one in found), number
            count += 1
        except UsageError as error:
            said = str(error)
            assert said.startswith("input.dat: ") and said.endswith(".") and said.isprintable(), (number, said)
            assert len(said) < 1000, (number, said)
        except Exception as error:
            raise AssertionError(f"input {number} raised {error!r}") from error
        slowest = max(slowest, time.process_time() - start)
        assert slowest < MOST_SECONDS, f"input {number} took {slowest:.1f} s"
    return count, slowest


def test_500_mutated_files_give_spectra_or_a_sentence(tmp_path):
    count, _ = survives(0, 500, tmp_path)
    assert 50 < count < 450  # both ends are reached


@pytest.mark.slow
def test_100_000_mutated_files_give_spectra_or_a_sentence(tmp_path):
    count, slowest = survives(0, 100_000, tmp_path)
    print(f"100000 inputs, {count} read, slowest {slowest:.3f} s")
