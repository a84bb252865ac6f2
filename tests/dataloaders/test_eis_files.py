"""Instruments' files: every format gives back the circuit's impedance; every bad file is answered in a sentence."""

from pathlib import Path

import numpy as np
import pytest

from dataloaders.eis_files import LARGEST, examine, read, read_folder
from dataloaders.eis_formats.names import column
from domains.eis import impedance
from runtime.errors import UsageError
from tests.dataloaders.eis_file_formats import CIRCUIT, FILES, FREQUENCIES, Z, rows, table

CSV = "{f:.9g},{re:.9g},{im:.9g}"
GOOD = table("frequency,Z',Z''", CSV)().decode()


def put(folder: Path, content: bytes | str, name: str = "cell.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_back_the_circuits_impedance(tmp_path, name):
    form, build, sweeps = FILES[name]
    found = examine(put(tmp_path, build(), name))
    assert found.format == form and len(found.spectra) == sweeps
    stem = Path(name).stem
    assert [one.name for one in found.spectra] == (
        [stem] if sweeps == 1 else [f"{stem} sweep {i + 1}" for i in range(3)]
    )
    for one in found.spectra:
        np.testing.assert_allclose(one.frequencies, FREQUENCIES[::-1], rtol=1e-8)
        np.testing.assert_allclose(one.z, Z[::-1], rtol=1e-6)


def test_what_was_assumed_is_told(tmp_path):
    notes = examine(put(tmp_path, FILES["decimal_commas.csv"][1]())).notes
    assert notes[0] == "decimal commas" and "imaginary from \"-Z'' [Ω]\" negated" in notes[1]
    assert "frequency from 'column 1', taken in Hz; real from 'column 2', taken in ohm" in str(
        examine(put(tmp_path, rows(CSV))).notes)  # fmt: skip
    assert "Windows-1252" in examine(put(tmp_path, FILES["biologic.mpt"][1]())).notes[0]
    area = examine(put(tmp_path, GOOD.replace("Z',Z''", "Z' (ohm cm2),Z'' (ohm cm2)"))).notes
    assert "all capacitances in F/cm2" in area[0]


@pytest.mark.parametrize(
    ("name", "role", "sign", "scale"),
    [("-Z''", "imaginary", -1, None), ("−Im(Z)/Ohm", "imaginary", -1, 1), ("Im(-Z)", "imaginary", -1, None),
     ("neg_Z_imag_ohm", "imaginary", -1, 1), ("Z′′ [MΩ]", "imaginary", 1, 1e6), ("Zreal (mOhm)", "real", 1, 1e-3),
     ("Freq in kHz", "frequency", 1, 1e3), ("ω (rad/s)", "omega", 1, 1), ("Phase(Z)/deg", "phase", 1, 1)],
)  # fmt: skip
def test_names_of_columns(name, role, sign, scale):
    known = column(name)
    assert known is not None and (known.role, known.sign) == (role, sign)
    assert (known.unit and known.unit.scale) == scale


@pytest.mark.parametrize(
    "name", ["Re(Y)/Ohm-1", "E Real", "Z2 Real", "Phase(Zce)/deg", "Time (s)", "Im (A)", "Ω", "x" * 99]
)
def test_names_of_other_quantities(name):
    assert column(name) is None


def test_angular_frequencies_other_orders_and_rows_without_a_measurement(tmp_path):
    turned = "omega,Z',Z''\n" + rows(CSV, 2 * np.pi * FREQUENCIES[::-1], Z[::-1])
    np.testing.assert_allclose(read(put(tmp_path, turned))[0].frequencies, FREQUENCIES[::-1], rtol=1e-8)
    order = np.random.default_rng(0).permutation(len(Z))
    found = examine(put(tmp_path, "f,Z',Z''\n" + rows(CSV, FREQUENCIES[order], Z[order])))
    np.testing.assert_allclose(found.spectra[0].z, Z[::-1], rtol=1e-8)
    assert "rows put in the order of frequency" in found.notes
    found = examine(put(tmp_path, "f,Z',Z''\n0,0,0\n0,0,0\n" + rows(CSV)))
    assert len(found.spectra[0].z) == len(Z) and "left out: 2" in found.notes[-1]


def test_sweeps_up_and_down_and_short_ones(tmp_path):
    both = "f,Z',Z''\n" + rows(CSV) + "\n" + rows(CSV, FREQUENCIES[::-1][1:], Z[::-1][1:]) + "\n" + rows(CSV)[:150]
    found = examine(put(tmp_path, both[: both.rindex("\n")]))
    assert [len(one.z) for one in found.spectra] == [len(Z), len(Z) - 1]
    assert "fewer than 5 points left out: 1" in found.notes[-1]
    titled = "f,Z',Z''\n" + rows(CSV) + "\nsecond\n" + rows(CSV)
    assert [one.name for one in read(put(tmp_path, titled))] == ["cell sweep 1", "cell sweep 2"]


def column_of(text: str, line: int, values: str) -> str:
    """The text with another line in the place of one (counted from 1)."""
    lines = text.split("\n")
    lines[line - 1] = values
    return "\n".join(lines)


BIG = impedance(CIRCUIT * [0.1, 1, 1, 1, 1], FREQUENCIES, "series")
swapped = "\n".join(",".join(line.split(",")[i] for i in (1, 0, 2)) for line in rows(CSV).split("\n"))
mixed_ohm = rows(CSV, FREQUENCIES[:16], Z[:16]) + "\n" + rows(CSV, FREQUENCIES[16:], Z[16:] / 1000)
mixed_hz = rows(CSV, FREQUENCIES[:11] / 1000, Z[:11]) + "\n" + rows(CSV, FREQUENCIES[11:], Z[11:])
BAD: dict[str, tuple[bytes | str, str]] = {
    "empty": (b"", "it is empty; needed: columns of frequency, Z' and Z''"),
    "blank": (b" \n\t\n", "it is empty"),
    "byte order mark alone": ("\ufeff\n", "it is empty"),
    "header only": ("frequency,Z',Z''\n", "line 1 names the columns 'frequency', \"Z'\", \"Z''\", but no row"),
    "header only, tabs": ("frequency\tZ'\tZ''\n\n", "line 1 names the columns"),
    "three points": ("\n".join(GOOD.split("\n")[:4]), "at least 5 points, got 3"),
    "nan": (column_of(GOOD, 7, "1000,nan,-3"), "line 7 holds no finite number"),
    "inf": (column_of(GOOD, 7, "1000,30,-inf"), "line 7 holds no finite number"),
    "too large a number": (column_of(GOOD, 7, "1000,1e999,-3"), "line 7 holds no finite number"),
    "huge": (column_of(GOOD, 7, "1e4,1e200,-3"), "line 7 has 1e+200 ohm; needed: 1e-12 to 1e+18 ohm"),
    "text in numbers": (column_of(GOOD, 7, "1000,30 ohm,-3"), "line 7 has '30 ohm' for \"Z'\"; needed: a number"),
    "text in numbers, no names": (column_of(rows(CSV), 7, "1000,x,-3"), "line 7 has 'x' for 'column 2'"),
    "text in the first row": (column_of(rows(CSV), 1, "1e5,x,-3"), "line 1 has 'x' for 'column 2'"),
    "no value": (column_of(GOOD, 7, "1000,,-3"), "line 7 has no value for \"Z'\""),
    "missing column": (column_of(GOOD, 7, "1000,30"), "line 7 has no value for \"Z''\""),
    "too many columns": (column_of(GOOD, 7, "1000,30,-3,4"), "line 7 has 4 columns, but line 1 names 3"),
    "unequal columns, no names": (column_of(rows(CSV), 7, "1000,30"), "line 7 has 2 columns and the rows before have"),
    "four columns, no names": (rows(CSV + ",1"), "line 1 has 4 columns without names"),
    "two columns, no names": (rows("{f},{size}"), "line 1 has 2 columns without names"),
    "decimal commas between commas": (rows("{f},{re},{im}", mark=","), "columns without names"),
    "thousands": (rows("{f:,.0f};{re:,.0f};0", z=1e4 * Z), "100,000 can be a decimal mark or group thousands"),
    "millions": (rows("{f:,.0f};{re:,.0f};{im:,.0f}", 1e2 * FREQUENCIES, 1e7 * Z), "group thousands, as in '10,000,"),
    "other names": ("time,current,voltage\n" + rows(CSV), "named 'time', 'current', 'voltage', which gives no imped"),
    "|Z| in place of Z'": ("f,|Z|,Z''\n" + rows("{f},{size},{im}"), "understood: 'f', '|Z|', \"Z''\""),
    "|Z| called Z'": ("f,Z',Z'',phase/deg\n" + rows("{f},{size},{im},{deg}"), "the phase of the file is ... degrees"),
    "Z' twice": ("f,Z',Re(Z),Z''\n" + rows("{f},{re},{re},{im}"), "names \"Z'\" and 'Re(Z)'; needed: one column"),
    "wrong sign": ("f,Z',Z''\n" + rows("{f},{re},{minus}"), "negative imaginary parts ... may hold -Z''"),
    "wrong sign, -Z'' named": ("f,Z',-Z''\n" + rows(CSV), "negative imaginary parts"),
    "wrong sign, no names": (rows("{f},{re},{minus}"), "negative imaginary parts"),
    "negative Z'": ("f,-Z',Z''\n" + rows(CSV), "Z' is negative in 100% of the rows"),
    "Z' and Z'' swapped": ("f,Z',Z''\n" + rows("{f},{im},{re}"), "Z'' positive (are the columns swapped?)"),
    "-Z'' and Z' swapped": ("f,Z',-Z'',phase/deg\n" + rows("{f},{minus},{re},{deg}"), "the phase of the file is"),
    "-Z'' and Z' swapped, no phase": ("f,Z',-Z''\n" + rows("{f},{minus},{re}"), "Z' and -Z'' swapped"),
    "Z'' in kohm": ("f,Z',Z''\n" + rows(CSV, z=BIG.real + 1e-3j * BIG.imag), "with Z'' in units 1000 times as large"),
    "Z' in kohm": ("f,Z',Z''\n" + rows(CSV, z=1e-3 * Z.real + 1j * Z.imag), "with Z' in units 1000 times as large"),
    "Z'' in mohm, Z' in kohm": (rows(CSV, z=1e-3 * BIG.real + 1e3j * BIG.imag), "with Z' in units 1e+06 times"),
    "radians without names": (rows("{f},{size},{rad}", z=BIG), "with Z' for |Z| and Z'' for a phase in radians"),
    "degrees without names": (rows("{f},{size},{deg}", z=BIG * 100), "with Z' for |Z| and Z'' for a phase in degrees"),
    "one Z'' for all": (rows("{f},{re},-5"), "Z'' is -5 in all 31 rows"),
    "wrong sign of small parts": (rows(CSV, z=(Z + 1e4).conj()), "is positive where |Z| falls ... may hold -Z''"),
    "all columns moved": ("f,Z',-Z''\n" + rows("{re},{minus},{f}"), "looks like the frequency"),
    "frequency swapped": ("f,Z',Z''\n" + swapped, "\"Z'\" looks like the frequency (even steps"),
    "frequency swapped, no names": (swapped, "'column 2' looks like the frequency"),
    "frequency last": (rows("{im},{re},{f}"), "Hz; needed: above 0 Hz ('column 3' looks like the frequency)"),
    "negative frequency": (column_of(GOOD, 7, "-1000,30,-3"), "line 7 has the frequency -1000 Hz; needed: above 0"),
    "mixed ohm and kohm rows": ("f,Z',Z''\n" + mixed_ohm, "|Z| jumps from ... needed: one unit of Z"),
    "mixed ohm and kohm rows of Z'": (rows(CSV, z=np.where(np.arange(31) < 12, Z.real / 1e3, Z.real) + 1j * Z.imag),
                                      "Z' changes a thousandfold between"),
    "mixed ohm and kohm rows of Z''": (rows(CSV, z=Z.real + 1j * np.where(np.arange(31) < 12, Z.imag / 1e3, Z.imag)),
                                       "Z'' changes a thousandfold between"),
    "small Z'' in kohm": (rows(CSV, z=Z.real + 1e4 + 1e-3j * Z.imag), "is 0.0008 times what the slope of |Z| says"),
    "mixed Hz and kHz rows": ("f,Z',Z''\n" + mixed_hz, "while Z stays; needed: one unit of frequency"),
    "mixed |Z|": ("f,Z',Z'',|Z|/kOhm\n" + rows("{f},{re},{im},{size}"), "give 0.001 times the |Z| of the file"),
    "milli or mega": ("f_mhz,Z',Z''\n" + rows(CSV), "unit of column 'f_mhz' can be milli or mega"),
    "two units": ("f (Hz),Z',Z''\nkHz,ohm,ohm\n" + rows(CSV), "has the unit Hz in the line below its name; needed"),
    "siemens": ("f,Z' (S),Z'' (S)\n" + rows(CSV), "has the unit 'S'; needed: ohm"),
    "phase without a unit": ("f,|Z|,phase\n" + rows("{f},{size},{rad}"), "lies within 2 pi and names no unit"),
    "a frequency twice": (GOOD + "1,3000,-5\n", "the frequency 1 Hz occurs twice in a sweep with different impedances"),
    "no order": ("f,Z',Z''\n" + "".join(2 * [f"{f},3,-0.{f}\n" for f in "58213947"]), "the frequency turns"),
    "only zeros": ("f,Z',Z''\n" + 9 * "0,0,0\n", "all 9 rows have frequency or impedance 0"),
    "binary": (bytes(range(256)) * 9, "it is binary (a NUL in character 1)"),
    "control characters": (GOOD.replace("1", "\x01"), "it is binary ( ... control characters)"),
    "a NUL": (GOOD.replace(",", "\x00", 1), "it is binary (a NUL in character 10)"),
    "a sheet": (b"PK\x03\x04\x14\x00", "a zip archive, such as an Excel"),
    "not UTF-8 and no table": ("Größe\nZürich\n".encode("latin-1"), "no table of numbers"),
    "a long line": ("1,2,3," * 9999, "line 1 has 59994 characters; needed: rows of at most 10000"),
    "many lines": ("1\n" * 300_000, "it has 300001 lines; needed: at most 200000"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_answered_in_one_sentence(tmp_path, what):
    content, parts = BAD[what]
    with pytest.raises(UsageError) as error:
        read(put(tmp_path, content))
    said = str(error.value)
    for part in parts.split(" ... "):
        assert part in said, said
    assert said.startswith("cell.csv: ") and said.endswith(".") and "\n" not in said and len(said) < 400
    assert "needed" in said or "needs" in said


def test_quoted_cells_with_decimal_commas(tmp_path):
    body = rows('"{f:.9g}"|"{re:.9g}"|"{im:.9g}"').replace(".", ",")
    quoted = '"f"|"Z\'"|"Z\'\'"\n' + body
    np.testing.assert_allclose(read(put(tmp_path, quoted.replace("|", ",")))[0].z, Z[::-1], rtol=1e-8)
    np.testing.assert_allclose(read(put(tmp_path, "sep=;\n" + quoted.replace("|", ";")))[0].z, Z[::-1], rtol=1e-8)


def test_utf_16_and_other_line_ends_are_read(tmp_path):
    for content in (GOOD.encode("utf-16"), GOOD.replace("\n", "\r").encode(), GOOD.replace("\n", "\r\r\n").encode()):
        np.testing.assert_allclose(read(put(tmp_path, content))[0].z, Z[::-1], rtol=1e-8)


def test_large_missing_and_strange_files(tmp_path):
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(200_000_000)  # sparse: takes no room
    with pytest.raises(UsageError, match=f"large.csv: it has 200 MB; needed: .* at most {LARGEST // 10**6} MB"):
        read(large)
    for path, match in ((tmp_path / "no.csv", "no.csv: there is no such file"), (tmp_path, "is a folder"),
                        ("/dev/null", "no plain file"), ("a\0b", "can't be read|no such file"),
                        ("x" * 5000, "can't be read")):  # fmt: skip
        with pytest.raises(UsageError, match=match):
            read(path)


def test_a_folder_gives_what_can_be_read_and_says_what_can_not(tmp_path):
    put(tmp_path, GOOD, "b.csv")
    put(tmp_path, FILES["nova.txt"][1](), "a.txt")
    put(tmp_path, "no numbers", "c.txt")
    put(tmp_path, GOOD, ".hidden.csv")
    (tmp_path / "below").mkdir()
    found, refused = read_folder(tmp_path)
    assert [(one.path.name, len(one.spectra)) for one in found] == [("a.txt", 3), ("b.csv", 1)]
    assert len(refused) == 1 and refused[0].startswith("c.txt: it holds no table of numbers")
    with pytest.raises(UsageError, match="none of the 0 files in .* is a spectrum"):
        read_folder(tmp_path / "below")
    with pytest.raises(UsageError, match="is no folder"):
        read_folder(tmp_path / "b.csv")
