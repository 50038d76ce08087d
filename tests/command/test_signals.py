"""How a command begins and ends."""

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import click
import numpy as np
import pytest

from mlaas4hep_dask.bundle.cli import models
from mlaas4hep_dask.command import Verb, announce, ended_by_signals, signals_wait, status, status_of
from mlaas4hep_dask.command.ends import Terminated
from mlaas4hep_dask.errors import ConfigError


def killed_twice(number, give_up):
    with ended_by_signals(give_up):
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)  # until the handler raises
        finally:
            os.kill(os.getpid(), number)  # is ignored


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_ends_a_command_once_and_has_its_own_status(number, expected):
    handler = signal.getsignal(number)
    given_up = []
    with pytest.raises(KeyboardInterrupt) as ended:
        killed_twice(number, lambda: given_up.append(True))
    assert status_of(ended.value) == expected
    assert given_up == []
    assert signal.getsignal(number) == handler


def test_the_first_line_is_written_at_once():
    stream = io.TextIOWrapper(io.BytesIO(), write_through=False)
    announce("running", stream)
    assert stream.buffer.getvalue() == b"running\n"


def test_an_error_that_a_user_can_mend_has_status_two(capsys):
    @click.command("verb", cls=Verb)
    def verb():
        raise ConfigError("a.yaml:1: wrong", file="a.yaml", line=1, key="", nearest=None)

    assert status(verb, [], name="verb") == 2
    assert "a.yaml:1: wrong" in capsys.readouterr().err


def test_a_bundle_that_is_not_there_is_an_error_of_the_verb(tmp_path, capsys):
    assert status(models, [str(tmp_path / "none")], name="models") == 2
    assert "no such bundle" in capsys.readouterr().err


SWALLOWS = """
import os, signal, sys, threading, time
from mlaas4hep_dask.command import ended_by_signals, status_of

class Closing:
    def __del__(self):
        if first:
            first.clear()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)  # until the handler raises

class Broken:
    def __del__(self):
        raise ValueError("of another kind")

first = [True]
try:
    with ended_by_signals(lambda: os._exit(9)):
        Closing()  # is gone at once
        Broken()
        threading.Event().wait(60)
except KeyboardInterrupt as ended:
    sys.exit(status_of(ended))
"""
IGNORED = """
import atexit, os, signal, sys
import click
from mlaas4hep_dask.command import Verb, process

@click.command("verb", cls=Verb)
def verb():
    pass

def again():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    print("cleaned up", flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
atexit.register(again)
sys.exit(process(verb, name="verb", clean_up=again))
"""


def script(text):
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.slow
def test_an_interrupt_that_a_destructor_swallows_is_raised_again():
    done = script(SWALLOWS)
    assert done.returncode == 143, done.stderr
    assert "of another kind" in done.stderr  # what else destructors raise is still told
    assert "Terminated" not in done.stderr


@pytest.mark.slow
def test_signals_do_not_disturb_the_end_of_a_process():
    done = script(IGNORED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned up\n" * 2, "")


@contextmanager
def told_of_signals():
    """A pipe into which Python writes the number of every signal, whichever thread takes it."""
    told, teller = os.pipe()
    os.set_blocking(teller, False)
    earlier = signal.set_wakeup_fd(teller)
    try:
        yield told
    finally:
        signal.set_wakeup_fd(earlier)
        os.close(told)
        os.close(teller)


def test_signals_wait_for_what_must_not_be_interrupted_whichever_thread_takes_them():
    # BLAS keeps a thread of its own, which takes a signal that the main thread has masked.
    np.ones((500, 500)) @ np.ones((500, 500))
    done = []
    with (  # noqa: PT012
        told_of_signals() as told,
        pytest.raises(KeyboardInterrupt) as ended,
        ended_by_signals(lambda: None),
    ):
        with signals_wait():
            os.kill(os.getpid(), signal.SIGTERM)
            assert os.read(told, 1) == bytes([signal.SIGTERM])  # some thread has taken it
            done.append("what must not be interrupted")
        done.append("what comes after it")
    assert status_of(ended.value) == 143
    assert done == ["what must not be interrupted"]


def test_an_error_while_cleaning_up_after_an_interrupt_is_the_interrupt(capsys):
    @click.command("verb", cls=Verb, interrupted="interrupted; go on with it")
    def verb():
        try:
            raise Terminated
        finally:
            raise TimeoutError  # as of a wait for a worker that was ended too

    assert status(verb, [], name="verb") == 143
    assert capsys.readouterr().err == "interrupted; go on with it\n"


def test_an_error_of_the_program_is_no_interrupt():
    @click.command("verb", cls=Verb)
    def verb():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        status(verb, [], name="verb")
