"""What all partitions of a data set share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.inputs.prepare import Preparation
from mlaas4hep_dask.inputs.supervision import Supervision


@dataclass(frozen=True)
class Context:
    """What all partitions of a data set share.

    Parameters
    ----------
    preparation : Preparation
        What is read, and how it becomes the inputs and all that is kept beside them.
    inputs : tuple of str
        Names of the inputs.
    supervision : Supervision
        How events get a label or targets, and a weight.
    fractions : tuple of float
        Split fractions for training, validation and test.
    seed : int
        Seed of the split.
    skip : bool
        Leave out what cannot be read instead of stopping.
    transforms : mapping
        By input: the function that its normalisation takes, which is measured too.
    encoding : Encoding or None
        Set once the specs are known.
    whole_specs : bool
        The encoding comes from specs of all events, so that no value is outside of their extremes.
    topic : str
        Topic of Dask events under which pass 2 tells what it could not read.
    """

    preparation: Preparation
    inputs: tuple[str, ...]
    supervision: Supervision
    fractions: tuple[float, float, float]
    seed: int
    skip: bool
    transforms: Mapping[str, str] = field(default_factory=dict)
    encoding: Encoding | None = None
    whole_specs: bool = False
    topic: str = ""
