"""What the report says of the encoding."""

from __future__ import annotations

from typing import Any

from mlaas4hep_dask.config import encoding as config
from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.encode.encoding import clipped_branches, normalisations_of


def encode_facts(section: config.Encoding, encoding: Encoding) -> dict[str, Any]:
    """Normalisation by branch, and width and order of objects by collection, as JSON values."""
    hows = normalisations_of(section.normalisation, encoding.layout.branches)
    about = dict(zip(encoding.layout.branches, encoding.scalings, strict=True))
    clipped = clipped_branches(section.out_of_range, encoding.layout.branches)
    return {
        "normalisation": {name: about[name].about or _shown(how) for name, how in hows.items()},
        "widths": dict(encoding.layout.collection_widths),
        "sort": dict(section.sort),
        "clipped": sorted(clipped),
    }


def _shown(how: Any) -> str:
    if isinstance(how, str):
        return how
    if "shift" in how:
        return f"shift {how['shift']:.6g}, scale {how['scale']:.6g}"
    return f"table of {len(how['x'])} points"
