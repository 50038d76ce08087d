"""numba, without what its first call imports for others.

Where SciPy is installed, as it is with coffea, numba imports ``scipy.linalg`` the first time that
anything is compiled, to know whether there is a BLAS. No kernel here uses one. All of them take
numba from here, so that it only looks whether SciPy is there; a function that does use linear
algebra imports it then.
"""

import sys
from importlib.util import find_spec
from typing import Any

_is_first = "scipy" not in sys.modules
if _is_first:
    sys.modules["scipy"] = None  # type: ignore[assignment]  # numba asks for its version otherwise
try:
    import numba as numba
    from numba.core import entrypoints as _entrypoints
    from numba.np import linalg as _linalg
finally:
    if _is_first:
        del sys.modules["scipy"]

_ensure_blas: Any = _linalg.ensure_blas


def _ensure_blas_later() -> None:
    asking = sys.modules.get("numba.np.arraymath")
    if asking is None or hasattr(asking, "_HAVE_BLAS"):  # it is used, not just asked for
        _ensure_blas()
    elif find_spec("scipy") is None:
        raise ImportError("SciPy is not installed")


_linalg.ensure_blas = _ensure_blas_later

_is_postponed = False


def postpone_extensions() -> None:
    """Compile without the extensions of other packages, as long as nobody asks for them.

    For worker processes. numba loads them ahead of its first compilation; with vector, which comes
    with coffea, that is sympy and 0.8 s. No kernel here takes a type of theirs.
    """
    global _is_postponed
    if not _entrypoints._already_initialized:
        _entrypoints._already_initialized = _is_postponed = True


def load_extensions() -> None:
    """Load the extensions that were postponed, for code of others."""
    global _is_postponed
    if _is_postponed:
        _is_postponed = _entrypoints._already_initialized = False
        _entrypoints.init_all()
