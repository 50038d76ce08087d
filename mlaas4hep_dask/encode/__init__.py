"""Encode: jagged events to dense, normalised rows with a missing mask, and back."""

from mlaas4hep_dask.encode.block import Block
from mlaas4hep_dask.encode.counts import EncodeCounts
from mlaas4hep_dask.encode.decode import decode, decode_events
from mlaas4hep_dask.encode.encoded import Encoded, encode
from mlaas4hep_dask.encode.encoding import Encoding, Scaling
from mlaas4hep_dask.encode.layout import JaggedBranch, Layout

__all__ = [
    "Block",
    "EncodeCounts",
    "Encoded",
    "Encoding",
    "JaggedBranch",
    "Layout",
    "Scaling",
    "decode",
    "decode_events",
    "encode",
]
