"""Judges what was found, one line for each fact; a line that is red says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mlaas4hep_dask.cluster.check.facts import Facts, Gpus, Scratch
from mlaas4hep_dask.waiting import size

Colour = Literal["green", "yellow", "red"]
WORDS: Mapping[Colour, str] = {"green": "ok", "yellow": "look", "red": "RED"}
GROUP, WHAT = len("trainers"), len("environment")  # widths of columns
LITTLE = 2 * 2**30  # bytes of room in scratch, below which it is told
MUCH = 0.5  # of its memory limit that an idle worker may take


@dataclass(frozen=True)
class Line:
    """What was found of one thing.

    Parameters
    ----------
    colour : {"green", "yellow", "red"}
        Whether it is as it has to be; yellow is what should be looked at.
    group : str
        Of which workers; empty for the cluster.
    what : str
        What was looked at.
    text : str
        What was found.
    advice : str
        What to do; empty only if it is green.
    """

    colour: Colour
    group: str
    what: str
    text: str
    advice: str = ""


def is_red(lines: Sequence[Line]) -> bool:
    """True when one is."""
    return any(line.colour == "red" for line in lines)


def as_text(lines: Sequence[Line]) -> str:
    """Lines as one reads them: columns, and what to do below what is not green."""
    texts = []
    for line in lines:
        first, *rest = line.text.splitlines() or [""]
        head = f"{WORDS[line.colour]:<4}  {line.group:<{GROUP}}  {line.what:<{WHAT}}  "
        texts.append(head + first)
        indent = " " * len(head)
        texts += [f"{indent}{each}" for each in rest]
        if line.advice:
            texts.append(f"{indent}→ {line.advice}")
    return "\n".join(each.rstrip() for each in texts)


def as_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Lines as JSON values."""
    return [asdict(line) for line in lines]


def environment_lines(group: str, facts: Facts, here: Mapping[str, str]) -> list[Line]:
    """What a worker can import, and its versions beside those ``here``."""
    tried = facts.tried
    where = f"Python {tried.python}, {tried.executable}"
    lines = []
    if tried.lacks:
        text = "; ".join(
            f"{lack.what} needs {lack.module or lack.reason}"
            + (f" (here {lack.version})" if lack.version else "")
            for lack in tried.lacks
        )
        lines.append(
            Line(
                "red",
                group,
                "environment",
                f"{where}: {text}",
                "install it in the environment of the workers, or name the right Python by the "
                "key python of the site's file",
            )
        )
    if tried.versions:
        pairs = ", ".join(f"{n} {v} (here {here[n]})" for n, v in sorted(tried.versions.items()))
        lines.append(
            Line(
                "red",
                group,
                "versions",
                f"{where}: {pairs}",
                "install the same versions on both sides: pip install -c constraints.txt",
            )
        )
    for name, what in tried.variables.items():
        lines.append(
            Line(
                "yellow",
                group,
                "variables",
                f"{what} asks for the environment's {name}, which has another value here",
                "give it to the workers: environment or pass-environment of the site's file",
            )
        )
    if not lines:
        lines.append(Line("green", group, "environment", f"{where}, the same packages as here"))
    return lines


def scratch_line(group: str, scratch: Scratch) -> Line:
    """Room in a folder."""
    free = f"{scratch.folder}: {size(scratch.free)} of {size(scratch.size)} free"
    keys = "local-directory of the site's file, or TMPDIR of the workers, names another folder"
    if scratch.is_full:
        text = f"{free}, and it cannot be written ({scratch.error})"
        return Line("red", group, "scratch", text, f"make room there, or ask for disk; {keys}")
    if scratch.error:
        text = f"{scratch.folder} cannot be written ({scratch.error})"
        return Line("red", group, "scratch", text, keys)
    if scratch.free < LITTLE:
        advice = f"blocks that do not fit into memory are kept there; {keys}"
        return Line("yellow", group, "scratch", free, advice)
    return Line("green", group, "scratch", f"{free}, writable")


def memory_line(group: str, taken_bytes: float, limit: float) -> Line:
    """Memory of a worker that has read nothing yet; a limit of 0 is none."""
    if not limit:
        return Line(
            "yellow",
            group,
            "memory",
            "the worker has no limit",
            "give it one (dask worker --memory-limit, memory of the site's file), so that Dask "
            "acts before the system kills",
        )
    text = f"{size(limit)}, of which an idle worker takes {size(taken_bytes)}"
    if taken_bytes > MUCH * limit:
        more = f"give at least {size(taken_bytes / MUCH)} (memory of the site's file)"
        return Line("red", group, "memory", text, more)
    return Line("green", group, "memory", text)


def ports_line(group: str, other: str, failures: Mapping[str, str]) -> Line:
    """Whether a worker can reach another; by what was tried, why it failed or nothing."""
    failed = {what: why for what, why in failures.items() if why}
    if not failed:
        return Line("green", group, "ports", f"reaches {', '.join(failures)} of {other}")
    reasons = "; ".join(f"{what} ({why})" for what, why in failed.items())
    return Line(
        "red",
        group,
        "ports",
        f"cannot reach of {other}: {reasons}",
        "a firewall closes the port, or the address is that of another network: name open ports "
        "(worker-ports, nanny-ports) or the interface in the site's file; ranks use any free port",
    )


def gpu_lines(group: str, gpus: Gpus) -> list[Line]:
    """GPUs and NCCL."""
    if gpus.error:
        advice = (
            "ask for one (gpus of the group in the site's file), install a torch built for CUDA, "
            "and give a container its option (--nv)"
        )
        return [Line("red", group, "GPU", gpus.error, advice)]
    lines = [Line("green", group, "GPU", ", ".join(gpus.names))]
    if gpus.nccl_error:
        advice = (
            "NCCL_DEBUG=INFO in environment of the site's file shows why; NCCL_SOCKET_IFNAME names "
            "the interface"
        )
        lines.append(Line("red", group, "NCCL", gpus.nccl_error, advice))
    else:
        lines.append(Line("green", group, "NCCL", f"version {gpus.nccl}"))
    return lines


STARTS = {
    r"there is no \w+ here": """run this where jobs can be submitted: a login node, or one that has
        the commands of the batch system on PATH""",
    r"No such file or directory|not found|No module named|cannot execute": """the words of the job
        stand above: the key python of the site's file names a Python that the nodes have, with this
        package; where they do not see your files, ship an environment (shared-files: false,
        packed-environment or container)""",
    r"refused jobs|refused a job": """the words of the batch system stand above: change account,
        queue, memory or walltime in the site's file; mlaas4hep cluster show SITE prints the
        script""",
    r"killed for memory|OUT_OF_MEMORY|exceeded memory": """ask for more memory (memory of the site's
        file)""",
    r"is held": "the reason of the hold stands above; on HTCondor condor_q -hold tells it too",
    r"has not connected|away for": """the job runs, and its worker cannot reach the scheduler: open
        its port (scheduler-ports), or name the interface (interface, scheduler-options) in the
        site's file; the log of the job says which address was tried""",
    r"pending|clause": """the words of the batch system stand above: ask for less memory, cores,
        GPUs or time, or another queue; where the queue is only long, wait longer with --timeout""",
    r"needs certificates|no Dask scheduler answers|does not answer as": """is the address right,
        does the scheduler run, and is its port open from here?""",
    r"has joined, and the scheduler cannot": """open the ports of the workers (--worker-port and
        --nanny-port; worker-ports and nanny-ports of the site's file), or give the address of the
        right network (--interface)""",
    r"the same environment": """install the same versions on both sides: pip install -c
        constraints.txt""",
    r"the cluster has 0": "start workers: dask worker ADDRESS",
}


def start_line(error: str, messages: Sequence[str]) -> Line:
    """That workers do not start, with the last words of the batch system or of Dask."""
    words = error.partition(": ")[2]  # of the batch system; they need not be repeated
    news = [each for each in dict.fromkeys(messages) if not words or words not in each]
    text = "\n".join([error, *news])
    advice = next(
        (advice for pattern, advice in STARTS.items() if re.search(pattern, text)),
        "see the log of the job, and the page on what to do when nothing starts",
    )
    return Line("red", "", "starts", text, " ".join(advice.split()))
