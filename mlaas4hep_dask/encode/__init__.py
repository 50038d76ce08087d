"""Encode: jagged events to dense, normalised rows or images with a missing mask, and back."""

from mlaas4hep_dask.encode.block import Block
from mlaas4hep_dask.encode.counts import EncodeCounts
from mlaas4hep_dask.encode.decode import decode, decode_events
from mlaas4hep_dask.encode.encoded import Encoded, encode
from mlaas4hep_dask.encode.encoded_images import EncodedImages
from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.image import Image
from mlaas4hep_dask.encode.layout import JaggedBranch, Layout
from mlaas4hep_dask.encode.order import Sort
from mlaas4hep_dask.encode.scaling import Scaling, Table

__all__ = [
    "Block",
    "EncodeCounts",
    "Encoded",
    "EncodedImages",
    "Encoding",
    "Image",
    "JaggedBranch",
    "Layout",
    "Scaling",
    "Sort",
    "Table",
    "decode",
    "decode_events",
    "encode",
]
