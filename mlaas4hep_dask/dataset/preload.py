"""Importing this module makes a process ready to read, measure and encode.

The first call of a compiled kernel costs a second in numba's own start-up, even when the kernel
is found in its cache. Worker processes are forked from one that has imported this.
"""

import numpy as np

from mlaas4hep_dask.compiled import postpone_extensions
from mlaas4hep_dask.dataset import tasks as tasks  # what workers run
from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.reader.byteorder import FEW, copy_native
from mlaas4hep_dask.reader.metered import copy_metered
from mlaas4hep_dask.reader.xxh64 import are_whole
from mlaas4hep_dask.specs.draw import entry_keys
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.meter import Meter

_EVENTS = Events(
    2,
    (Branch("flat", "flat", "float32"), Branch("jagged", "jagged", "float32", "collection")),
    {"flat": np.arange(2, dtype=np.float32), "jagged": np.arange(3, dtype=np.float32)},
    {"collection": np.array([0, 1, 3])},
)
postpone_extensions()
are_whole(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64))
_values, _out = np.frombuffer(bytes(FEW), dtype=np.uint32), np.zeros(FEW // 4, dtype=np.uint32)
copy_native(_values, _out)
_meter = Meter(entry_keys(0, 0, _out.size))
_watched = _meter.watch(_EVENTS.branches[:1], {}, None)
copy_metered(_values, None, 0, _watched["flat"])  # as pass 1 does it
encode(_EVENTS, Encoding.from_specs(measure(_EVENTS, sample="none"))).dense()
