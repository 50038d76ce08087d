"""Tells processes apart, also when their numbers are given out again."""

from __future__ import annotations

from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
STATE, START = 0, 19  # places of what /proc tells of a process, after its name
DEAD = ("Z", "X")


def birth_of(process: int) -> str:
    """When a process of this machine began: its boot, and the clock ticks since then.

    No other process on any machine has the same number and the same birth. Empty when there is no
    such process, or it has ended and its parent has not heard of that yet.
    """
    try:
        text = Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2]
        boot = BOOT.read_text("ascii").strip()
    except OSError:
        return ""
    words = text.split()
    return "" if words[STATE] in DEAD else f"{boot}/{words[START]}"
