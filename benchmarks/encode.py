"""Encoding to dense float32 rows, against np.copy of the same bytes, on one core.

With --with-read: read and encode, against our own read, bare uproot and decompression, into rows
that are kept from one partition to the next, as the windows of a rank are; ``fresh`` is the same
with new rows for each. The missing mask of padding is carried as multiplicities, so it is not
written; --with-missing writes it too.
--image: to images of two channels of 32 by 32 cells, filled by the first branches of a collection.
"""

import math

import common
import numpy as np

from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.reader import read
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all

CELLS = {"range": [0.0, 300.0], "cells": 32}  # 98 % of the objects lie in between
IMAGE = {
    "axes": {"Jet_v00": CELLS, "Jet_v01": CELLS},
    "planes": [["Jet_v00", "Jet_v01"]],
    "channels": [{"value": "Jet_v02", "combine": "sum"}, {"value": "Jet_v03", "combine": "max"}],
}


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        with_read={"action": "store_true", "help": "read and encode, against reading"},
        reference=common.reference_option("read"),
        image={"action": "store_true", "help": "encode to images instead of rows"},
        with_missing={"action": "store_true", "help": "write the missing mask too"},
    )
    common.pin_to_one_core()
    files = common.planned_files(parsed)
    specs = merge_all(
        measure(read(partition, files.branches), sample=partition.sample)
        for partition in files.partitions
    )
    encoding = Encoding.from_specs(specs, image=IMAGE if parsed.image else None)
    numbers = math.prod(encoding.row_shape)

    def densify(events: object, out: np.ndarray | None = None) -> np.ndarray:
        encoded = encode(events, encoding)
        if parsed.with_missing:
            encoded.missing()
        return encoded.dense(out=None if out is None else out[: len(events)])

    if parsed.with_read:
        largest = max(map(len, files.partitions))
        kept = np.empty((largest, *encoding.row_shape), dtype=np.float32)

        def all_into(out: np.ndarray | None) -> None:
            for partition in files.partitions:
                densify(read(partition, files.branches), out)

        common.close_read(
            "read+encode",
            parsed,
            lambda: all_into(kept),
            files,
            {"fresh": lambda: all_into(None)},
            columns=numbers,
        )
    else:
        parts = [read(partition, files.branches) for partition in files.partitions[:2]]
        rows = [densify(part) for part in parts]

        def ours() -> None:
            for part in parts:
                densify(part)

        def copies() -> None:
            for dense in rows:
                np.copy(dense)

        result = common.compare(ours, copies, 4 * parsed.repeats)
        common.close(
            "encode images" if parsed.image else "encode",
            sum(map(len, parts)),
            result,
            reference="np.copy of what is written",
            cores=1,
            columns=numbers,
        )


if __name__ == "__main__":
    main()
