"""Counts of what encoding could not keep as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.specs import Specs


@dataclass(frozen=True, slots=True)
class EncodeCounts:
    """What became missing, lay outside the specs or was cut off; ``+`` adds two.

    Parameters
    ----------
    not_finite : mapping of str to int
        By branch: values that were encoded as missing: NaN, infinities, and with ``log`` those
        that are not above 0.
    out_of_range : mapping of str to int
        By branch: values outside the extremes in the specs, which were passed or clipped.
    truncated : mapping of str to int
        By collection: objects beyond the width, which were left out.
    off_image : mapping of str to int
        By collection and plane of an image: objects that are in no cell of it.
    shared_cell : mapping of str to int
        By collection and plane of an image: objects in a cell that an earlier object of their
        event is in.
    """

    not_finite: Mapping[str, int] = field(default_factory=dict)
    out_of_range: Mapping[str, int] = field(default_factory=dict)
    truncated: Mapping[str, int] = field(default_factory=dict)
    off_image: Mapping[str, int] = field(default_factory=dict)
    shared_cell: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: EncodeCounts) -> EncodeCounts:
        return EncodeCounts(
            dict(Counter(self.not_finite) + Counter(other.not_finite)),
            dict(Counter(self.out_of_range) + Counter(other.out_of_range)),
            dict(Counter(self.truncated) + Counter(other.truncated)),
            dict(Counter(self.off_image) + Counter(other.off_image)),
            dict(Counter(self.shared_cell) + Counter(other.shared_cell)),
        )

    def as_json(self) -> dict[str, dict[str, int]]:
        """All counts; those of images only when there are any."""
        counts = {key: dict(getattr(self, key)) for key in self.__slots__}
        return {
            key: number
            for key, number in counts.items()
            if number or key not in ("off_image", "shared_cell")
        }

    @classmethod
    def from_specs(cls, specs: Specs, encoding: Encoding) -> EncodeCounts:
        """The counts of encoding all events that the specs were measured on.

        No value of theirs lies outside the specs, and the histograms of multiplicities tell
        exactly how many objects are cut off.
        """
        not_finite = {}
        for branch, scaling in zip(encoding.branches, encoding.scalings, strict=True):
            entry = specs.branches[branch.name]
            moments = entry.transformed.get(scaling.transform, entry.moments)
            not_finite[branch.name] = moments.num_values - moments.num_finite
        truncated = {
            jagged.collection: sum(
                events * (multiplicity - jagged.width)
                for multiplicity, events in enumerate(specs.multiplicities[jagged.collection])
                if multiplicity > jagged.width
            )
            for jagged in encoding.layout.jagged
        }
        return cls(
            {name: number for name, number in not_finite.items() if number},
            {},
            {name: number for name, number in truncated.items() if number},
        )
