"""A data set from its configuration to lazy arrays; what a notebook works with."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Client, Future

from mlaas4hep_dask.config import Config, load
from mlaas4hep_dask.dataset.arrays import DaskArrays, lazy_arrays
from mlaas4hep_dask.dataset.binning import bins_of
from mlaas4hep_dask.dataset.blocks import BlockPlan
from mlaas4hep_dask.dataset.cache import cache_folder
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.distributions import Distributions, distributions
from mlaas4hep_dask.dataset.examples import gather_examples
from mlaas4hep_dask.dataset.first_events import first_events
from mlaas4hep_dask.dataset.granularity import Suggestion, suggestions
from mlaas4hep_dask.dataset.lost import Listener, Lost
from mlaas4hep_dask.dataset.mean_image import NOTHING, ImageSums, sum_images
from mlaas4hep_dask.dataset.plan import Plan, Skipped
from mlaas4hep_dask.dataset.planning import plan_files
from mlaas4hep_dask.dataset.progress import watching
from mlaas4hep_dask.dataset.specs_pass import SpecsFacts, SpecsTask, specs_pass
from mlaas4hep_dask.dataset.tasks import Measured
from mlaas4hep_dask.encode import EncodeCounts, Encoding
from mlaas4hep_dask.encode.examples import Examples
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.normalise import encode_options, with_columns
from mlaas4hep_dask.inputs.preflight import Preflight, preflight
from mlaas4hep_dask.inputs.prepare import Texts
from mlaas4hep_dask.inputs.reuse import event_facts, supervision_facts
from mlaas4hep_dask.inputs.weighting import (
    TrainingWeights,
    class_sums,
    factors_of,
    fitted,
    training_weights,
)
from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.reader import Partition, ReadCounts
from mlaas4hep_dask.specs import SampleSpecs, Specs
from mlaas4hep_dask.specs.sample import ClassSums
from mlaas4hep_dask.waiting import ClusterHandle

if TYPE_CHECKING:
    import dask_awkward


class Dataset:
    """A configured data set on a Dask cluster; each step is done when first asked for.

    Parameters
    ----------
    config : Config
        From dataset.yaml.
    client : distributed.Client or ClusterHandle
        Where the work runs.
    checked : Preflight, optional
        Result of `preflight`, when the caller has it already.
    """

    def __init__(
        self,
        config: Config,
        client: ClusterHandle | Client,
        checked: Preflight | None = None,
    ) -> None:
        self.config = config
        self.cluster = ClusterHandle.of(client)
        self._checked = checked
        self._plan: Plan | None = None
        self._measured: Measured | None = None
        self._encode_options: dict[str, Any] | None = None
        self._listener = Listener()
        self._image_sums: ImageSums | None = None

    @classmethod
    def from_yaml(
        cls, path: str | Path, client: ClusterHandle | Client, *, overrides: Sequence[str] = ()
    ) -> Dataset:
        """The data set of a dataset.yaml; files, tree and branches are checked at once.

        Parameters
        ----------
        path : str or Path
            The YAML file.
        client : distributed.Client or ClusterHandle
            Where the work runs.
        overrides : sequence of str
            ``key.path=value``, as for ``--set``.

        Raises
        ------
        ConfigError, DataError
            As `load` and `preflight` do.
        """
        config = load(path, overrides)
        return cls(config, client, preflight(description_of(config)))

    def checked(self) -> Preflight:
        """What was found before any work, with the user's code as it was then."""
        if self._checked is None:
            self._checked = preflight(description_of(self.config))
        return self._checked

    def plan(self) -> Plan:
        """The plan: one Dask task per file that is not open yet, which reads metadata only.

        Meanwhile a worker tries to import what reading and the user's function will need; if it
        cannot, that is a ClusterError.
        """
        if self._plan is None:
            config = self.config
            self._plan = plan_files(
                self.checked(), self.cluster, config.partition, config.max_events
            )
        return self._plan

    def specs(self, *, progress: Callable[[int], None] | None = None) -> Specs:
        """The specs: one Dask task per partition, merged in a tree.

        Those of all events, of a subset of them, or of a file, as the configuration says.

        Parameters
        ----------
        progress : callable, optional
            Told the number of events of every partition that is done.
        """
        return self._measure(progress).specs

    def skipped(self) -> tuple[Skipped, ...]:
        """Files and partitions that could not be read and were left out."""
        return self.plan().skipped + self._measure().skipped

    def lost(self) -> tuple[Lost, ...]:
        """Partitions that pass 1 read and pass 2 could not; their events have weight 0."""
        return tuple(entry for _, entry in sorted(self._listener.lost.items()))

    def recall_lost(self, lost: Iterable[Lost]) -> None:
        """Count among `lost` what an earlier process lost in the same training."""
        self._listener.recall(lost)

    def read_counts(self) -> ReadCounts:
        """What reading has cost beside the plain way: in plan, pass 1 and pass 2."""
        return self.plan().read_counts + self._measure().read_counts + self._listener.read_counts

    def split_counts(self) -> list[tuple[str, tuple[int, int, int]]]:
        """For each block its sample and its events for training, validation and test."""
        measured = self._measure()
        partitions = self.plan().partitions
        return [
            (partitions[number].sample, measured.split_counts[number])
            for number in sorted(measured.split_counts)
        ]

    def samples(self) -> Mapping[str, SampleSpecs]:
        """By sample: all its events and their weights, though the specs be those of fewer."""
        return self._measure().samples

    def num_cached(self) -> int:
        """Events whose specs came from the cache."""
        return self._measure().num_cached

    def encode_counts(self, by_block: Mapping[int, EncodeCounts] | None = None) -> EncodeCounts:
        """What encoding all events makes missing, finds out of range or cuts off.

        Parameters
        ----------
        by_block : mapping of int to EncodeCounts, optional
            Counts of blocks that have been made already. Unless the specs are those of all
            events, and so tell the counts of rows, all other blocks are made for it.
        """
        if self._has_whole_specs():
            return EncodeCounts.from_specs(self.specs(), self.encoding())
        by_block = by_block or {}
        blocks = self.blocks()
        numbers = [number for number in range(len(blocks.partitions)) if number not in by_block]
        futures = [
            self._submit(attrgetter("encoded.counts"), blocks.submit(self.cluster, number))
            for number in numbers
        ]
        return sum(
            [
                *by_block.values(),
                *self.cluster.gather(futures, "counts of encoding", group="readers"),
            ],
            EncodeCounts(),
        )

    def _has_whole_specs(self) -> bool:
        """Whether the specs are those of all selected events; rows of images hold other values."""
        config = self.config
        return config.specs.mode == "full" and config.specs.path is None and config.image is None

    def _measure(self, progress: Callable[[int], None] | None = None) -> Measured:
        if self._measured is None:
            with watching(self.cluster, progress):
                self._measured = specs_pass(
                    self._specs_task(), self.cluster, self.plan(), self.plan().context
                )
        return self._measured

    def _specs_task(self) -> SpecsTask:
        config = self.config
        facts = SpecsFacts(
            config.digest(),
            self._event_facts(),
            supervision_facts(
                self.plan().supervision,
                target=config.target,
                weight=config.weight,
                split=config.split,
                seed=config.seed.split,
            ),
        )
        reused, folder = self._reused(), None
        if reused is None and config.specs.mode == "full":
            folder = cache_folder(config.specs.cache, config.places)
        return SpecsTask(config.specs, facts, self.token(), folder, reused)

    def _event_facts(self) -> dict[str, Any]:
        config, use = self.config, self.plan().preparation.use
        texts = Texts(config.derive, config.objects, config.select)
        return event_facts(texts, None if use is None else use.function)

    def _reused(self) -> Specs | None:
        return None if self.config.specs.path is None else self.checked().specs

    def encoding(self) -> Encoding:
        """Layout and normalisation, derived from the specs; DataError when rows have no column."""
        return with_columns(Encoding.from_specs(self.specs(), **self.encode_options()))

    def encode_options(self) -> dict[str, Any]:
        """The section ``encode`` with what its functions say of the specs, as JSON values."""
        if self._encode_options is None:
            self._encode_options = encode_options(
                self.config.encode,
                self.config.image,
                self.specs(),
                self.plan().keys,
                self.checked().normalisers,
            )
        return self._encode_options

    def objective(self) -> Objective:
        """What a network learns to give for this data set.

        Raises
        ------
        DataError
            When there is nothing to learn: a target is constant, or all events are of one class.
        """
        return fitted(self.plan().supervision, self.samples(), self.encoding())

    def factors(self) -> dict[str, float]:
        """By sample: the factor on the own weights of its events.

        Raises
        ------
        DataError
            When a cross section has to be divided by a sum of weights that is not positive.
        """
        return factors_of(
            self.config.samples,
            self.samples(),
            weight=self.config.weight,
            luminosity=self.config.luminosity,
        )

    def training_weights(self) -> TrainingWeights:
        """Factors of the classes in the loss, and the mean weight of a training event."""
        return training_weights(
            self.plan().supervision,
            self.factors(),
            self.class_sums(),
            balanced=self.config.training.balance == "classes",
        )

    def class_sums(self) -> dict[str, list[ClassSums]]:
        """By sample: events and sums of their own weights in every class."""
        num_train = dict.fromkeys(self.plan().samples, 0)
        for sample, (train, _, _) in self.split_counts():
            num_train[sample] += train
        return class_sums(self.plan().supervision, self.samples(), num_train)

    def blocks(self) -> BlockPlan:
        """The blocks of all partitions that could be read."""
        partitions = self.plan().partitions
        readable = tuple(partitions[number] for number in sorted(self._measure().split_counts))
        supervision = replace(self.plan().supervision, factors=self.factors())
        token = self.token("blocks", json.dumps(self.encode_options()))
        topic = f"mlaas4hep_dask-lost-{token}"
        self._listener.listen(self.cluster, topic)
        context = replace(
            self.plan().context,
            encoding=self.encoding(),
            whole_specs=self._has_whole_specs(),
            supervision=supervision,
            topic=topic,
        )
        split_counts = tuple(split_counts for _, split_counts in self.split_counts())
        return BlockPlan(token, readable, context, split_counts)

    def to_dask(self) -> DaskArrays:
        """Lazy arrays of all events; the specs are computed, the arrays are not."""
        return lazy_arrays(
            self.blocks(),
            row_shape=self.encoding().row_shape,
            y_tail=self.plan().supervision.objective.y_tail,
        )

    def to_dask_awkward(self) -> dask_awkward.Array:
        """Lazy records of the inputs; computing reads only what the touched branches need."""
        from mlaas4hep_dask.dataset.view import awkward_view

        plan = self.plan()
        return awkward_view(plan.partitions, plan.preparation, plan.branches)

    def examples(self) -> Examples:
        """Real events of every sample: encoded, and some as a client would send them.

        Raises
        ------
        DataError
            When none can be read any more.
        """
        return gather_examples(self.cluster, self._filled(), self.blocks().context)

    def _filled(self) -> list[Partition]:
        """The partitions of which events are selected."""
        counted = zip(self.blocks().partitions, self.split_counts(), strict=True)
        return [part for part, (_, sizes) in counted if sum(sizes)]

    def distributions(self) -> list[Distributions]:
        """Histograms of the inputs of the first events of each sample."""
        return self._of_first_events(partial(distributions, bins=bins_of(self.specs())))

    def image_sums(self) -> ImageSums:
        """Sums of the images of the first events of each sample; of none without an image."""
        if self._image_sums is None:
            of_images = self.config.image is not None
            parts = self._of_first_events(sum_images) if of_images else []
            self._image_sums = sum(parts, NOTHING)
        return self._image_sums

    def cell_suggestions(self) -> list[Suggestion]:
        """For each plane of the image, whether its cells are too coarse; none without an image.

        It is found from the first events of each sample, at most `FIRST_EVENTS`.
        """
        return suggestions(self.image_sums().tried)

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """A task of those who read."""
        return self.cluster.submit(function, *arguments, group="readers", pure=False)

    def _of_first_events(self, function: Callable[[Partition, Context], Any]) -> list[Any]:
        parts = first_events(self._filled())
        context = self.blocks().context
        futures = [self._submit(function, part, context) for part in parts]
        return self.cluster.gather(futures, "the first events", group="readers")

    def token(self, *more: str) -> str:
        """Names tasks: equal for equal files and configuration, so that results are shared."""
        files = [
            (each.file, each.tree, each.uuid, each.stamp, each.num_entries, each.friends_as_json())
            for each in self.plan().files
        ]
        reused = self._reused()
        origin = None if reused is None else reused.provenance["reused"]["sha256"]
        text = json.dumps([self.config.events_digest(), self._event_facts(), origin, files, *more])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _repr_html_(self) -> str:
        parts = [f"<h4>Dataset {html.escape(self.config.name)}</h4>"]
        if self._plan is not None:
            parts.append(self._plan._repr_html_())
        else:
            names = ", ".join(html.escape(sample.name) for sample in self.config.samples)
            parts.append(f"<p>samples {names}; not planned yet</p>")
        if self._measured is not None:
            specs = self._measured.specs
            parts.append(
                f"<details><summary>specs of {len(specs.branches)} branches</summary>"
                f"{specs._repr_html_()}</details>"
            )
        return "".join(parts)
