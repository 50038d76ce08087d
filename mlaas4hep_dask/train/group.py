"""The group of ranks: how they meet, sum what each has, and leave each other."""

from __future__ import annotations

import os
from collections.abc import Set
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mlaas4hep_dask.train.exchange import LAST, SharedMemoryExchange
from mlaas4hep_dask.train.links import Place, cut, listening
from mlaas4hep_dask.train.meeting import Board, BoardStore, interface_of
from mlaas4hep_dask.train.session import RankTask

MEETING = timedelta(minutes=10)  # for the others to join


class Group:
    """A rank's place among the others.

    Gradients are averaged through shared memory where all ranks are on one machine, else by gloo;
    those on GPUs by NCCL. All else is summed on CPUs, by gloo.

    Parameters
    ----------
    task : RankTask
        Of the rank.

    Attributes
    ----------
    exchange : SharedMemoryExchange or None
        Through which gradients go, if not through torch.
    """

    exchange: SharedMemoryExchange | None = None
    _has_joined = _is_abandoned = False
    _links: Set[Place] = frozenset()  # where its ranks listen for gloo
    _store: BoardStore | None = None  # torch keeps no reference to what Python has of it

    def __init__(self, task: RankTask) -> None:
        self._task = task
        self._device = torch.device(task.device)

    def join(
        self, board: Board, memory: str | None, network: torch.nn.Module, num_values: int | None
    ) -> torch.nn.Module | None:
        """What averages the gradients of a network over all ranks, once these have met.

        It is None when there are no others, or when they have met before.

        Parameters
        ----------
        board : Board
            Where they leave their addresses for each other.
        memory : str or None
            Memory of rank 0 for the gradients, if all ranks can share it.
        network : torch.nn.Module
            The network.
        num_values : int or None
            Values of all gradients, if they can go through shared memory.
        """
        task = self._task
        if self._has_joined or task.num_ranks == 1:
            return None
        if dist.is_initialized():  # a session that broke off while it was being opened
            dist.destroy_process_group()
        self._store = BoardStore(
            board, rank=task.rank, timeout=MEETING, is_abandoned=lambda: self._is_abandoned
        )
        for name, value in variables(task.host, self._device).items():
            os.environ.setdefault(name, value)
        before = listening()
        dist.init_process_group(
            backend_of(self._device),
            store=self._store,
            rank=task.rank,
            world_size=task.num_ranks,
            timeout=LAST,
        )
        self._links = listening() - before
        places: list[Any] = [None] * task.num_ranks
        dist.all_gather_object(places, self._links)
        self._links = set().union(*places)
        wrapped = DistributedDataParallel(network, gradient_as_bucket_view=True)
        # Buffers are averaged after every epoch: those of one rank alone know its events alone. As
        # an argument this has one name until torch 2.12, and another one after.
        wrapped.broadcast_buffers = False
        self.exchange = self._share_memory(memory, num_values)  # all have met after this
        if self.exchange is not None:
            wrapped.register_comm_hook(None, self.exchange.hook)
        self._has_joined = True
        if task.rank == 0:
            board.clear()
        return wrapped

    def _share_memory(
        self, memory: str | None, capacity: int | None
    ) -> SharedMemoryExchange | None:
        """The exchange through shared memory, if every rank can open it."""
        task, exchange = self._task, None
        if memory is not None and capacity is not None:
            with suppress(OSError):
                exchange = SharedMemoryExchange(
                    memory, rank=task.rank, num_ranks=task.num_ranks, capacity=capacity
                )
        num_open = torch.tensor(0 if exchange is None else 1)
        dist.all_reduce(num_open)
        return exchange if num_open == task.num_ranks else None

    def abandon(self) -> None:
        """Wait for other ranks no more."""
        self._is_abandoned = True
        if self.exchange is not None:
            self.exchange.abandoned = True
        if self._links:
            cut(self._links)
        if self._device.type == "cuda" and dist.is_initialized():
            group: Any = dist.group.WORLD
            nccl = group._get_backend(self._device)
            with suppress(RuntimeError):  # it has ended already
                # What waits on the GPU ends, and the next sum is an error. Before torch 2.6 the
                # method had another name.
                (getattr(nccl, "abort", None) or nccl._shutdown)()

    def close(self) -> None:
        """Leave the process group, and whatever wait a thread of this rank is still in."""
        self.abandon()
        if self._task.num_ranks > 1 and dist.is_initialized():
            dist.destroy_process_group()


def backend_of(device: torch.device) -> str:
    """Torch's words for what sums over ranks, by the device of what is summed."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def variables(host: str, device: torch.device) -> dict[str, str]:
    """The environment that ranks need at a host, which is this one, where it does not say others.

    By default gloo takes the address that this machine's name has, which may be a loopback address
    that other machines cannot reach; NCCL takes any interface.
    """
    found = {}
    if interface := interface_of(host):
        found["GLOO_SOCKET_IFNAME"] = interface
    if device.type == "cuda":
        if interface:
            found["NCCL_SOCKET_IFNAME"] = f"={interface}"  # this one, not all that begin so
        # When a sum fails its communicator is ended, and not the process: the rank tells why, and
        # its worker may be one again.
        found["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "2"
    return found
