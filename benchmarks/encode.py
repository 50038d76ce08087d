"""Encoding to dense float32 rows, against np.copy of the same bytes, on one core.

With --with-read: read and encode, against our own read, bare uproot and decompression. The missing
mask of padding is carried as multiplicities, so it is not written; --with-missing writes it too.
"""

import common
import numpy as np

from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.reader import read
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        with_read={"action": "store_true", "help": "read and encode, against reading"},
        reference=common.reference_option("read"),
        with_missing={"action": "store_true", "help": "write the missing mask too"},
    )
    common.pin_to_one_core()
    files = common.planned_files(parsed)
    specs = merge_all(
        measure(read(partition, files.branches), sample=partition.sample)
        for partition in files.partitions
    )
    encoding = Encoding.from_specs(specs)

    def densify(events: object) -> np.ndarray:
        encoded = encode(events, encoding)
        if parsed.with_missing:
            encoded.missing()
        return encoded.dense()

    if parsed.with_read:

        def ours() -> None:
            for partition in files.partitions:
                densify(read(partition, files.branches))

        columns = encoding.layout.num_columns
        common.close_read("read+encode", parsed, ours, files, columns=columns)
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
            "encode",
            sum(map(len, parts)),
            result,
            reference="np.copy of the dense rows",
            cores=1,
            columns=encoding.layout.num_columns,
        )


if __name__ == "__main__":
    main()
