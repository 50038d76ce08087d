"""What a data set needs of workers, and one of its files, which a worker opens as a plan does."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mlaas4hep_dask.catalog import DataFile, resolve_files
from mlaas4hep_dask.cluster.check.lines import Line
from mlaas4hep_dask.config import Model, Training
from mlaas4hep_dask.inputs.description import Description
from mlaas4hep_dask.reader import Access, plan_file, reading_needs
from mlaas4hep_dask.usercode import Need, find_code

NO_DATA = ("numpy", "awkward", "uproot", "numba", "pyarrow", "torch")


@dataclass(frozen=True)
class Input:
    """One file, and what reading and training need.

    Parameters
    ----------
    file : DataFile or None
        None without a data set.
    access : Access
        How it is reached.
    needs : tuple of Need
        What has to be imported.
    """

    file: DataFile | None
    access: Access
    needs: tuple[Need, ...]


def no_input() -> Input:
    """What workers need for any data set."""
    return Input(None, Access(), (Need.of("this package", NO_DATA),))


def input_of(description: Description, model: Model, training: Training, loss: str) -> Input:
    """The first file of a data set, and what workers need for it.

    Parameters
    ----------
    description : Description
        What the data set is to be.
    model, training
        Sections of the configuration whose code is to be imported.
    loss : str
        The name of the loss, or the reference of a user's own.

    Raises
    ------
    InputError
        When there is no such file.
    CodeError
        When there is no such code.
    """
    files = [file for of in resolve_files(description.listing).values() for file in of]
    needs = reading_needs((file.file for file in files), description.access)
    needs.append(Need.of("training", ["torch"]))
    needs += code_needs(description, model, training, loss)
    return Input(files[0], description.access, tuple(needs))


def code_needs(description: Description, model: Model, training: Training, loss: str) -> list[Need]:
    """The user's code that workers import, as of `input_of`.

    Normalisations reach them as numbers.
    """
    sections = {
        "model": model,
        "function": description.function,
        "optimiser": training.optimiser,
        "scheduler": training.scheduler,
        **{f"hooks[{number}]": hook for number, hook in enumerate(training.hooks)},
    }
    named = [
        (what, section.callable, section.kwargs)
        for what, section in sections.items()
        if section is not None
    ]
    named.append(("loss", loss, {}))
    resolve = description.places.resolve
    return [
        Need.of_code(what, find_code(reference, resolve=resolve, values=values))
        for what, reference, values in named
        if ":" in reference  # others are torch's or ours
    ]


def open_file(file: DataFile, access: Access) -> tuple[int, float]:
    """Entries of a file and the seconds that it took to look; runs on a worker.

    Raises
    ------
    DataError
        When it cannot be opened.
    """
    began = time.perf_counter()
    file_plan = plan_file(file.file, file.tree, "check", access, file.friends)
    return file_plan.num_entries, time.perf_counter() - began


def opened_line(group: str, file: DataFile, num_entries: int, seconds: float) -> Line:
    """That a worker has opened a file."""
    text = f"{file.file}: {num_entries:,} entries, after {seconds:.2f} s"
    return Line("green", group, "input", text)


def unopened_line(group: str, error: Exception) -> Line:
    """That a worker cannot open a file that this machine can name."""
    advice = (
        "local files have to be at the same path on the nodes, else use root:// or https://; for a "
        "server, look at proxy and token (above), at X509_USER_PROXY, X509_CERT_DIR and "
        "BEARER_TOKEN_FILE on the nodes (pass-environment), and whether they reach its port"
    )
    return Line("red", group, "input", str(error), advice)
