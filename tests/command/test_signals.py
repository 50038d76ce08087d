"""How a command begins and ends."""

import io
import os
import signal
import time

import click
import pytest

from mlaas4hep_dask.bundle.cli import models
from mlaas4hep_dask.command import Verb, announce, ended_by_signals, status, status_of
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
    handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    inherited = signal.signal(number, handler)  # nohup and a shell's & let signals be ignored
    given_up = []
    try:
        with pytest.raises(KeyboardInterrupt) as ended:
            killed_twice(number, lambda: given_up.append(True))
        assert status_of(ended.value) == expected
        assert given_up == []
        assert signal.getsignal(number) == handler
    finally:
        signal.signal(number, inherited)


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
