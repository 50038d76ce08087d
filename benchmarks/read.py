"""Reading: all 74 branches into flat arrays, against bare uproot.iterate, on one core."""

import common

from mlaas4hep_dask.reader import read


def main() -> None:
    parsed = common.options(__doc__)
    common.pin_to_one_core()
    files = common.planned_files(parsed)

    def ours() -> None:
        for partition in files.partitions:
            read(partition, files.branches)

    result = common.compare(ours, lambda: common.uproot_iterate(files), parsed.repeats)
    common.close("read", parsed.events, result, reference=common.REFERENCE_READ, cores=1)


if __name__ == "__main__":
    main()
