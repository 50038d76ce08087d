"""Real files: plan, specs, and read and encode of all branches, against bare uproot, on one core.

Without --files: those that are shipped with the tests, and a generated one in the shape of NanoAOD
v15 (2,656 branches, 200 events, LZMA). uproot opens a file and reads the same branches in one call.
Of ours every stage begins as in a process of its own, with a partition as it is sent to workers and
no file open. ``ratio`` is the smallest for specs and encoding of all files; ``total`` is the
processor time of plan, specs and encoding together, as a multiple of uproot's.
"""

from __future__ import annotations

import pickle
import statistics
from collections.abc import Callable
from pathlib import Path

import common
import data
import uproot
from specs import measured

from mlaas4hep_dask.config.sections import Partitioning
from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.reader import FilePlan, Partition, plan_file, read
from mlaas4hep_dask.reader.opened import forget
from mlaas4hep_dask.specs.specs import merge_all

ROOT = Path(__file__).parent.parent
SHIPPED = (
    "tests/data/vectors.root:Events",
    "tests/data/PHYSLITE_example.root:CollectionTree",
    "tests/data/nano_dy.root:Events",
    "tests/data/p8_ee_WW_ecm240_edm4hep.root:events",
    "workflows/heptutorial/data/cms_heptutorial_single_top.root:events",
    "workflows/heptutorial/data/cms_heptutorial_ww.root:events",
)


class File:
    """The stages of one file."""

    def __init__(self, path: str, tree: str) -> None:
        self.path, self.tree = path, tree
        plan = self._planned()
        self.branches = tuple(plan.branches.values())
        self.partitions = self.plan()
        specs = merge_all(measured(part, self.branches) for part in self.partitions)
        self.encoding = Encoding.from_specs(specs)
        self.num_events = plan.num_entries
        with uproot.open({path: None}) as file:
            known = file[tree]
            # By the path in the tree, as uproot's own expressions are.
            self.names = [name for name in plan.branches if name in known]

    def _planned(self) -> FilePlan:
        return plan_file(self.path, self.tree, "s")

    def plan(self) -> list[Partition]:
        """The partitions, as they come to workers."""
        forget(self.path)
        plan = self._planned()
        size = Partitioning()
        parts = plan.planned(list(plan.branches)).partitions(
            target_bytes=size.target_bytes,
            max_events=size.max_events,
            num_entries=plan.num_entries,
        )
        return pickle.loads(pickle.dumps(parts))  # noqa: S301  # its own

    def specs(self) -> None:
        """Measure all partitions."""
        forget(self.path)
        merge_all(measured(part, self.branches) for part in self.partitions)

    def encode(self) -> None:
        """Read and encode all partitions to dense rows."""
        forget(self.path)
        for part in self.partitions:
            encode(read(part, self.branches), self.encoding).dense()

    def uproot(self) -> None:
        """The same branches by bare uproot."""
        with uproot.open({self.path: None}, array_cache=None, object_cache=None) as file:
            wanted = set(self.names)
            file[self.tree].arrays(filter_name=lambda name: name in wanted)


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        wide={"type": int, "default": 2_656, "help": "branches of the generated file"},
        files={"nargs": "*", "default": [], "metavar": "FILE:TREE", "help": "files to read"},
    )
    common.pin_to_one_core()
    listed = parsed.files
    if not listed:
        wide = data.generate_wide(parsed.data, branches=parsed.wide)
        listed = [f"{ROOT / name}" for name in SHIPPED] + [f"{wide}:Events"]
    found, worst = {}, None
    for name in listed:
        path, _, tree = name.rpartition(":")
        file = File(path, tree)
        stages: dict[str, Callable[[], object]] = {
            "plan": file.plan,
            "specs": file.specs,
            "encode": file.encode,
            "uproot": file.uproot,
        }
        times = common.time_in_turns(stages, parsed.repeats)
        results = {
            stage: common.comparison(times[stage], times["uproot"])
            for stage in ("plan", "specs", "encode")
        }
        together = [
            sum(times[stage][i][1] for stage in results) / times["uproot"][i][1]
            for i in range(parsed.repeats)
        ]
        found[Path(path).name] = {
            "events": file.num_events,
            "branches": len(file.branches),
            "total": round(statistics.median(together), 3),
            **common.ratios(results),
        }
        print(Path(path).name, found[Path(path).name], flush=True)
        for stage in ("specs", "encode"):
            if worst is None or (results[stage].cpu_ratio or 0) < (worst.cpu_ratio or 0):
                worst, num_events = results[stage], file.num_events
    assert worst is not None  # there are files
    common.close(
        "real files",
        num_events,
        worst,
        reference="uproot.open and arrays of the same branches, in one call",
        cores=1,
        cpu_ratio=round(worst.cpu_ratio or 0, 4),
        files=found,
    )


if __name__ == "__main__":
    main()
