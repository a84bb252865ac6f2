"""What a column's name says in files of impedance spectra: the quantity, its sign and its unit."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

LONGEST = 60  # characters of a name; longer text is prose
NAMES = {
    "frequency": "f freq freqs frequency frequencies frequenz frequence fréquence frecuencia frequenza",
    "omega": "omega ω w angularfrequency angfreq",
    "real": "z' z'(a) zre zreal zr zprime re re(z) rez real real(z) realz realpart zrealpart realimpedance reimpedance "
    "impedancereal resistance",
    "imaginary": 'z" z"(b) zim zimg zimag zimaginary zi zdoubleprime zprimeprime im im(z) imz imag imag(z) imagz '
    "imaginary imaginary(z) imaginarypart zimagpart imaginaryimpedance imimpedance impedanceimag impedanceimaginary "
    "reactance",
    "modulus": "z |z| mod mod(z) modz zmod modulus magnitude mag zmag abs(z) absz zabs impedance |impedance| "
    "impedancemagnitude impedancemodulus",
    "phase": "phase phase(z) phasez phz zphz zphase phaseangle impedancephase theta ztheta θ ϑ phi zphi φ angle arg "
    "arg(z)",
}
ROLES = {name: role for role, names in NAMES.items() for name in names.split()}
KINDS = {"frequency": ("Hz",), "omega": ("rad/s",), "real": ("ohm", "ohm cm2"), "imaginary": ("ohm", "ohm cm2"),
         "modulus": ("ohm", "ohm cm2"), "phase": ("deg", "rad")}  # fmt: skip
PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "m": 1e-3, "G": 1e9, "μ": 1e-6, "u": 1e-6}
PREFIXED = re.compile(r"([kKMmGuμ]?)(hz|ohms?|Ω)([ .*·]?cm(?:\^?2))?", re.IGNORECASE)
PLAIN = {"deg": "deg", "degree": "deg", "degrees": "deg", "°": "deg", "º": "deg", "grad": "deg", "rad": "rad",
         "radian": "rad", "radians": "rad", "rad/s": "rad/s", "rads-1": "rad/s", "rad s-1": "rad/s", "1/s": "rad/s",
         "s-1": "rad/s"}  # fmt: skip
TYPOGRAPHY = str.maketrans({"′": "'", "’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"', "″": '"', "−": "-",
                            "–": "-", "—": "-", "[": "(", "{": "(", "]": ")", "}": ")"})  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """kind: Hz, ohm, ohm cm2, deg, rad or rad/s; scale: the factor to it, None where m may be milli or mega."""

    kind: str
    scale: float | None


@dataclass(frozen=True)
class Column:
    """role: a key of NAMES; sign: -1 for -Z''; unit: None where the name has none; text: the name as written.

    strange: what stands in the unit's place and is none of this quantity ("" if nothing does).
    """

    role: str
    sign: int
    unit: Unit | None
    text: str
    strange: str = ""


def plain(text: str) -> str:
    """The text with one form of primes, minus signs, brackets and compatible letters (the ohm sign, micro)."""
    text = text.translate(TYPOGRAPHY)  # before NFKC, which takes some of these apart
    text = unicodedata.normalize("NFKC", text).translate(TYPOGRAPHY)
    return " ".join(text.replace("''", '"').replace('""', '"').split())


@lru_cache(4096)
def unit(text: str) -> Unit | None:
    """The unit that a text is, None for other text."""
    text = plain(text).strip("() ")
    if text.lower() in PLAIN:
        return Unit(PLAIN[text.lower()], 1.0)
    found = PREFIXED.fullmatch(text)
    if not found:
        return None
    prefix, base, area = found.groups()
    prefix = "k" if prefix == "K" else prefix
    scale = PREFIXES.get(prefix)
    one_case = base != "Ω" and text in (text.lower(), text.upper())
    if prefix in ("m", "M") and one_case:
        scale = None
    return Unit("Hz" if base.lower() == "hz" else "ohm cm2" if area else "ohm", scale)


@lru_cache(4096)
def column(text: str) -> Column | None:
    """What a column's name says, None for a name of anything else."""
    if len(text) > LONGEST:
        return None
    name = plain(text)
    base, measured, strange = name, None, ""
    for pattern in (r"(.*?)\s*\(([^()]*)\)", r"(.*?[^\s/_,])[\s/_,]+(?:in )?\(?([^\s/_,()]+|rad/s)\)?"):
        if found := re.fullmatch(pattern, name):
            if measured := unit(found[2]):
                base = found[1]
                break
    if not measured and (alone := unit(name)):
        return Column("frequency", 1, alone, text) if alone.kind == "Hz" else None
    sign, role = role_of(base)
    if role is None and (found := re.fullmatch(r"(.*?)\s*\(([^()]*)\)|([^/]+?)\s*/\s*(\S+)", name)):
        # an unknown unit: the quantity is known if the rest alone says so, unlike the Re of Re(Y)
        rest, strange = (found[1], found[2]) if found[1] is not None else (found[3], found[4])
        sign, role = role_of(rest)
        if role is None or not re.search("[zf]", rest.lower()):
            return None
    if role is None:
        return None
    if measured and measured.kind == "rad/s" and role == "frequency":
        role = "omega"
    if measured and measured.kind not in KINDS[role]:
        return Column(role, sign, None, text, strange=measured.kind)
    return Column(role, sign, measured, text, strange)


def role_of(base: str) -> tuple[int, str | None]:
    """The sign and the role of a name without its unit; the role is None for other names."""
    base = re.sub(r"[\s_.]", "", base.lower())
    sign, rest = 1, base
    if found := re.match(r"(?:-|negative|neg|minus)(?=.)", base):
        sign, rest = -1, base[found.end() :]
    if "(-" in rest:  # Im(-Z)
        sign, rest = -sign, rest.replace("(-", "(")
    rest = rest.replace("-", "")
    if rest not in ROLES and rest.startswith("(") and rest.endswith(")"):
        rest = rest[1:-1]
    return sign, ROLES.get(rest)


def short(text: str) -> str:
    """A text from a file for a sentence: quoted, without control characters, at most 40 characters."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def listed(names: Sequence[str]) -> str:
    """Up to eight names from a file for a sentence."""
    return ", ".join(short(name) for name in names[:8]) + (" ..." if len(names) > 8 else "")
