"""Instruments' files written from a circuit: what each format looks like, for the readers' tests."""

from collections.abc import Callable

import numpy as np

from domains.eis import impedance

CIRCUIT = np.array([500.0, 3000.0, 2000.0, 3e-6, 1e-6])
FREQUENCIES = np.geomspace(1e5, 1.0, 31)
Z = impedance(CIRCUIT, FREQUENCIES, "parallel", 25.0)


def rows(form: str, f: np.ndarray = FREQUENCIES, z: np.ndarray = Z, **more: str) -> str:
    """A line for every point, from a form in f, re, im, minus (-im), size, deg, lag (-deg), rad, i."""
    text = "\n".join(
        form.format(f=a, re=b.real, im=b.imag, minus=-b.imag, size=abs(b), deg=np.degrees(np.angle(b)),
                    lag=-np.degrees(np.angle(b)),                    rad=np.angle(b), i=i)
        for i, (a, b) in enumerate(zip(f, z, strict=True), 1)
    )  # fmt: skip
    return text.replace(".", ",") if more.get("mark") == "," else text


def gamry(mark: str = ".") -> bytes:
    head = "EXPLAIN\nTAG\tEISPOT\nTITLE\tLABEL\tPotentiostatic EIS\tTest &Identifier\n"
    idle = ("OCVCURVE\tTABLE\t2\n\tPt\tT\tVf\tVm\tAch\tOver\n\t#\ts\tV vs. Ref.\tV\tV\tbits\n"
            "\t0\t0.25\t-3.3E-002\t-3.3E-002\t-3.4E-002\t......\n\t1\t0.5\t-3.3E-002\t0\t0\t......\n")  # fmt: skip
    names = "ZCURVE\tTABLE\n\tPt\tTime\tFreq\tZreal\tZimag\tZsig\tZmod\tZphz\tIdc\tVdc\tIERange\n"
    units = "\t#\ts\tHz\tohm\tohm\tV\tohm\t°\tA\tV\t#\n"
    body = rows("\t{i}\t{i}\t{f:.9g}\t{re:.9g}\t{im:.9g}\t1\t{size:.9g}\t{deg:.9g}\t-2.2E-006\t-0.34\t7")
    text = idle + names + units + body + "\nEXPERIMENTABORTED\tTOGGLE\tT\tExperiment Aborted\n"
    return (head + (text.replace(".", ",") if mark == "," else text)).encode("latin-1")


def biologic(cycles: int = 1) -> bytes:
    head = "Potentio Electrochemical Impedance Spectroscopy\n\nElectrode surface area : 0.001 cm²\nva (mV) 10.0\n"
    names = (
        "freq/Hz\tRe(Z)/Ohm\t-Im(Z)/Ohm\t|Z|/Ohm\tPhase(Z)/deg\ttime/s\t<I>/mA\tcycle number\tRe(Y)/Ohm-1\tCs/µF\t\n"
    )
    body = "".join(rows(f"{{f:.9E}}\t{{re:.9E}}\t{{minus:.9E}}\t{{size:.9E}}\t{{deg:.9E}}\t1.0\t0.0\t{n}.0\t2.0\t0.1\n")
                   for n in range(1, cycles + 1)).replace("\n\n", "\n")  # fmt: skip
    return (f"EC-Lab ASCII FILE\nNb header lines : {4 + head.count(chr(10))}\n\n" + head + names + body).encode(
        "latin-1"
    )


def zplot() -> bytes:
    head = ("ZPLOT2 ASCII\n  Measured Data, ZPlot:       3.2c\n  Null Configuration: 0,3,0,1,300000,1\n"
            f"  Points: {len(Z)}\n  Freq(Hz)\tAmpl\tBias\tTime(Sec)\tZ'(a)\tZ''(b)\tGD\tErr\tRange\n")  # fmt: skip
    return (
        head + "End Comments\n" + rows("{f:.9E}\t1.0E-02\t0.0E+00\t{i}\t{re:.9E}\t{im:.9E}\t0.0E+00\t0\t3")
    ).encode()


def zplot_quoted() -> bytes:
    names = "\"  Freq (Hz)    Ampl     Bias   Time(Sec)   Z'(a)    Z''(b)    GD   Err   Range\""
    head = f'\ufeff"Z60W Data File: Version 1.1"\r\n""\r\n0,2,0,1,0.1,10000\r\n{len(Z)}\r\n{names}\r\n'
    return (head + rows("{f:.9g},0,0,0,{re:.9g},{im:.9g},0,0").replace("\n", "\r\n")).encode()


def versastudio() -> bytes:
    head = "<Application>\nType=VersaStudio\n</Application>\n\n<Segment1>\nType=2\nVersion=3\n"
    names = "Definition=Segment #, Point #, E(V), I(A), Frequency(Hz), E Real, E Imag, Z Real, Z Imag, Z2 Real, 0\n"
    body = rows("0,{i},0,-3.3E-06,{f:.9g},-0.003,-0.017,{re:.9g},{im:.9g},0,0")
    return (head + names + body + "\n</Segment1>\n\n<DockPanel>\n</DockPanel>\n").encode()


def nova(sweeps: int = 3) -> bytes:
    date = "10/13/2021\t\t\t\t\t\t\t\t\n"
    names = "Index\tTime (s)\tFrequency (Hz)\tZ' (Ω)\t-Z'' (Ω)\tZ (Ω)\t-Phase (°)\tOCP value (V)\tA\n"
    body = rows("{i}\t{i}.5\t{f:.9g}\t{re:.9g}\t{minus:.9g}\t{size:.9g}\t{lag:.9g}\t\t")
    return ("\ufeff" + (date + names + body + "\n") * sweeps).encode()


def table(names: str, form: str, mark: str = ".") -> Callable[[], bytes]:
    """A builder of a table with a line of names ("": none)."""
    return lambda: ((names + "\n" if names else "") + rows(form, mark=mark) + "\n").encode()


# name of a file in each format: the format's name in a Reading, how it is made, how many sweeps it holds
FILES: dict[str, tuple[str, Callable[[], bytes], int]] = {
    "gamry.dta": ("Gamry", gamry, 1),
    "gamry_commas.DTA": ("Gamry", lambda: gamry(","), 1),
    "biologic.mpt": ("BioLogic", biologic, 1),
    "biologic_cycles.mpt": ("BioLogic", lambda: biologic(3), 3),
    "zplot.z": ("ZPlot", zplot, 1),
    "zplot_quoted.txt": ("ZPlot", zplot_quoted, 1),
    "versastudio.par": ("VersaStudio", versastudio, 1),
    "nova.txt": ("NOVA", nova, 3),
    "plain.csv": ("table separated by commas", table("frequency,Z',Z''", "{f:.9g},{re:.9g},{im:.9g}"), 1),
    "units.csv": ("table separated by commas",
                  table("f_kHz,Zreal_kohm,-Zimag_Mohm", "{f:.9g}e-3,{re:.9g}e-3,{minus:.9g}e-6"), 1),
    "rows_of_units.tsv": ("table separated by tabs",
                          table("freq\tRe\tIm\nmHz\tkOhm\tmΩ", "{f:.9g}e3\t{re:.9g}e-3\t{im:.9g}e3"), 1),
    "no_names.csv": ("table separated by commas", table("", "{f:.9g},{re:.9g},{im:.9g}"), 1),
    "comment.csv": ("table separated by commas",
                    table("# cell 3, 21 C\n# freq, Z_real, Z_imag", "{f:.9g},{re:.9g},{im:.9g}"), 1),
    "white_space.txt": ("table separated by white space",
                        table("Freq. (Hz)  Z' (Ohm)  Z'' (Ohm)", "  {f:.9g}   {re:.9g}   {im:.9g}"), 1),
    "decimal_commas.csv": ("table separated by semicolons",
                           table("Frequenz [Hz];Z' [Ω];−Z'' [Ω]", "{f:.9g};{re:.9g};{minus:.9g}", ","), 1),
    "degrees.csv": ("table separated by commas",
                    table("f (MHz),|Z| (kΩ),-phase (°)", "{f:.9g}e-6,{size:.9g}e-3,{lag:.9g}"), 1),
    "radians.csv": ("table separated by commas", table("freq,|Z|,phase_rad", "{f:.9g},{size:.9g},{rad:.9g}"), 1),
    "index.csv": ("table separated by commas", table(",re(z),im(z),freq/Hz", "{i},{re:.9g},{im:.9g},{f:.9g}"), 1),
    "ch.txt": ("table separated by commas",
               table("A.C. Impedance\n\nFreq/Hz, Z'/ohm, Z\"/ohm, Z/ohm, Phase/deg\n",
                     "{f:.9e}, {re:.9e}, {im:.9e}, {size:.9e}, {deg:.9f}"), 1),
    "counted.P00": ("table separated by tabs",
                    table(f" f/Hz \t Z'/Ohm \t -Z''/Ohm \t t/s \t\n {len(Z)}", " {f:.9g}\t {re:.9g}\t {minus:.9g}\t 1"),
                    1),
}  # fmt: skip
