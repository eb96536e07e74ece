"""Reads two variables of a MATLAB 5 file in a process of its own, because scipy's reader crashes on damaged ones.

Started as a script with two arguments, the file and where ``X`` and ``y`` are written as ``.npz``. Exit codes: 0 read,
3 scipy is missing, 4 not such a file. Only the standard library, numpy and scipy are imported.
"""

import resource
import sys
import warnings
from pathlib import Path

EXIT_READ = 0
EXIT_MISSING = 3
EXIT_REFUSED = 4
MAX_IMAGES = 1_000_000
MEMORY_BYTES = 6 << 30
"""Address space of the process: two copies of ``MAX_IMAGES`` images would need more, those of SVHN a tenth."""


def convert(source: Path, target: Path) -> int:
    """Write the variables of ``source`` to ``target`` and return the exit code."""
    try:
        import numpy as np
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        sys.stderr.write(f"{error.name}\n")
        return EXIT_MISSING
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("error")
    try:
        announced = {name: (shape, kind) for name, shape, kind in whosmat(str(source), appendmat=False)}
        shape, kind = announced["X"]
        # The sizes in the heads are looked at before anything of that size is made.
        if len(shape) != 4 or shape[:3] != (32, 32, 3) or not 1 <= shape[3] <= MAX_IMAGES or kind != "uint8":
            sys.stderr.write(f"X is {kind} of shape {shape}\n")
            return EXIT_REFUSED
        if announced["y"][0] not in ((shape[3], 1), (1, shape[3])) or announced["y"][1] in ("cell", "struct", "object"):
            sys.stderr.write(f"y is {announced['y'][1]} of shape {announced['y'][0]}\n")
            return EXIT_REFUSED
        arrays = loadmat(str(source), appendmat=False, variable_names=("X", "y"))
        np.savez(target, X=arrays["X"], y=arrays["y"])
    except Exception as error:  # noqa: BLE001 - whatever the reader makes of a damaged file, it is one
        sys.stderr.write(f"{type(error).__name__}\n")
        return EXIT_REFUSED
    return EXIT_READ


if __name__ == "__main__":
    sys.exit(convert(Path(sys.argv[1]), Path(sys.argv[2])))
