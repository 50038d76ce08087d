"""numba, without the half second that its first call spends on SciPy's linear algebra.

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
