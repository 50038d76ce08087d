"""Lets the workers that will be ranks get ready, while others plan and read."""

from __future__ import annotations

import logging

from distributed import Future

from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.first_worker import FirstWorker
from mlaas4hep_dask.devices import gpu_lacking
from mlaas4hep_dask.formats import ONNX_PACKAGES
from mlaas4hep_dask.train.calls import import_rank
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import ModelSource
from mlaas4hep_dask.usercode import Need
from mlaas4hep_dask.waiting import LostWorkerError, processes

logger = logging.getLogger(__name__)


def begin_ranks(
    dataset: Dataset, model: ModelSource, method: Method
) -> tuple[list[Future], FirstWorker]:
    """Let the workers that will be ranks import torch, while others plan and read.

    One of them, or a reader while there is none, tries to import model, loss and the like too. If
    all workers will be ranks, none could read meanwhile: then this waits, so that the rates of the
    next stages are their own. The futures are to be kept until training begins.

    Raises
    ------
    ClusterError
        When the trial has ended already, and the worker cannot, or has no GPU where it needs one.
    """
    cluster = dataset.cluster
    training = dataset.config.training
    ranks = cluster.choose(training.ranks, "trainers")
    needs = [Need.of("training", ["numpy", "torch"]), Need.of_code("model", model.code)]
    if "onnx" in dataset.config.export.formats:
        needs.append(Need.of("export.formats", ONNX_PACKAGES))
    needs += [Need.of_code(what, code) for what, code in method.codes.items()]
    lacking = gpu_lacking if training.device == "cuda" else None
    trial = FirstWorker(cluster, needs, "trainers", near=next(iter(ranks), None), lacking=lacking)
    importing = [
        cluster.submit(import_rank, workers=[worker], pure=False, priority=20) for worker in ranks
    ]
    if len(ranks) == len(cluster.alive()):
        trial.end()
        try:
            cluster.gather(importing, "ranks import torch", on=processes(ranks))
        except LostWorkerError as error:
            cluster.let_go(importing)  # nobody else can run them
            logger.warning("%s; ranks import it when training begins", error)
    return importing, trial
