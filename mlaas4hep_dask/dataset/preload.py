"""Importing this module makes a process ready to read, measure and encode.

The first call of a compiled kernel costs a second in numba's own start-up, even when the kernel
is found in its cache. Worker processes are forked from one that has imported this.
"""

import numpy as np

from mlaas4hep_dask.dataset import tasks as tasks  # what workers run
from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.reader.metered import note
from mlaas4hep_dask.specs.draw import entry_keys
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.meter import Meter

_EVENTS = Events(
    2,
    (Branch("flat", "flat", "float32"), Branch("jagged", "jagged", "float32", "collection")),
    {"flat": np.arange(2, dtype=np.float32), "jagged": np.arange(3, dtype=np.float32)},
    {"collection": np.array([0, 1, 3])},
)
_values = np.zeros(1, dtype=np.float32)
note(_values, 0, Meter(entry_keys(0, 0, 1)).watch(_EVENTS.branches[:1], {}, None)["flat"])
encode(_EVENTS, Encoding.from_specs(measure(_EVENTS, sample="none"))).dense()
