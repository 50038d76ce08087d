"""A command reports errors itself, once: Dask, and what it is built on, log nothing."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.cluster
# Dask's wait is interrupted before its loop has begun with what is waited for: Dask then cancels
# what is not there yet, and tornado logs that.
SCRIPT = """
import asyncio, logging, os, signal, sys, threading, time
from mlaas4hep_dask.cluster import silence
from mlaas4hep_dask.command import ended_by_signals, start_log, status_of

start_log(verbose=True)
silence()
from distributed.utils import LoopRunner, sync

heard = threading.Event()

def main_thread_waits():
    frame = sys._current_frames()[threading.main_thread().ident]
    waits = frame.f_code is threading.Condition.wait.__code__
    while frame is not None and frame.f_code is not sync.__code__:
        frame = frame.f_back
    return waits and frame is not None

def interrupt():
    while not main_thread_waits():
        time.sleep(0.01)  # between two looks
    os.kill(os.getpid(), signal.SIGTERM)
    heard.wait(100)

runner = LoopRunner()
runner.start()
try:
    with ended_by_signals(lambda: None):
        runner.loop.add_callback(interrupt)
        sync(runner.loop, asyncio.sleep, 100)
except KeyboardInterrupt as ended:
    heard.set()
    sync(runner.loop, asyncio.sleep, 0.1)  # all that came before has been called
    loud = [
        name
        for name in logging.root.manager.loggerDict
        if name.split(".")[0] in {"asyncio", "bokeh", "distributed", "tornado"}
        and logging.getLogger(name).isEnabledFor(logging.CRITICAL)
    ]
    print(loud)
    sys.exit(status_of(ended))
"""


def test_an_interrupt_of_a_wait_prints_nothing():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "[]\n", "")
