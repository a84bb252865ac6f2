"""impedance.py's CustomCircuit on spectra for eis_fit.py: seconds and parameters of each fit, one JSON line.

Stands alone (impedance and its own NumPy). The file holds "frequencies" (F,) Hz, "z" (N, F) complex ohm and "guess"
(N, 5), Rsh, Ra, Rb, Ca, Cb; "topology" says which circuit. Weights are by modulus, as ours; everything else is as
impedance.py has it. A fit that raises or takes longer than --limit seconds has parameters null.
"""

import argparse
import json
import signal
import time
import warnings
from importlib.metadata import version

import numpy as np
from impedance.models.circuits import CustomCircuit

CIRCUITS = {"series": "R0-p(R1,C1)-p(R2,C2)", "parallel": "p(R0,p(R1,C1)-p(R2,C2))"}
ORDER = [0, 1, 3, 2, 4]  # Rsh, Ra, Rb, Ca, Cb as they come there, R0, R1, C1, R2, C2, and back


def stopped(number, frame):
    """Ends a fit that takes too long."""
    raise TimeoutError


def fitted(circuit: str, frequencies, z, guess, limit: int) -> tuple[float, list[float] | None]:
    """Seconds of one fit, and Rsh, Ra, Rb, Ca, Cb."""
    signal.alarm(limit)
    begin = time.perf_counter()
    try:
        model = CustomCircuit(circuit, initial_guess=[guess[i] for i in ORDER])
        model.fit(frequencies, z, weight_by_modulus=True)
        found = [float(model.parameters_[i]) for i in ORDER]
    except (RuntimeError, ValueError, TimeoutError):
        found = None
    finally:
        signal.alarm(0)
    return time.perf_counter() - begin, found


def main() -> None:
    """All spectra of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--limit", type=int, default=60)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, stopped)
    with np.load(given.file) as held:
        frequencies, z, guess, topology = (held[key] for key in ("frequencies", "z", "guess", "topology"))
    fits = [fitted(CIRCUITS[str(topology)], frequencies, *row, given.limit) for row in zip(z, guess, strict=True)]
    print(json.dumps({"seconds": [s for s, _ in fits], "parameters": [p for _, p in fits],
                      "impedance": version("impedance"), "numpy": version("numpy")}))  # fmt: skip


if __name__ == "__main__":
    main()
