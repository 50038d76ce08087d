"""How long waits go on before something is told, and before they are given up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Bounds of waits, in seconds.

    Parameters
    ----------
    first_word : float
        After which it is told what is lacking.
    next_word : float
        After which it is told again.
    long : float
        After which it is told what is waited for, though nothing is lacking.
    no_worker : float
        In which a cluster, or a group of it, that has no worker may get one.
    paused : float
        In which workers that are full, and at no task, may get room.
    silent : float
        Without a sign of life of a worker, after which that is told.
    mute : float
        Of silence, after which nobody will start the worker again: Dask does after 5 to 10 minutes
        unless it is told otherwise, on a local cluster after 2 to 4.
    """

    first_word: float = 5.0
    next_word: float = 15.0
    long: float = 60.0
    no_worker: float = 60.0
    paused: float = 60.0
    silent: float = 15.0
    mute: float = 660.0


PATIENCE = Patience()
