"""A private xrootd that serves one folder, on loopback or on a host of its own.

It runs as root or as an ordinary user.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# xrootd has no key for the address to listen at; it takes a socket as systemd hands it over.
_START = (
    "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
    "os.execvp(sys.argv[2], sys.argv[2:])"
)
_LAUNCH = f"import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); {_START}"
_LAUNCH_THERE = (
    "import os, sys, socket; place = sys.argv[1].split(':'); "
    "listening = socket.create_server((place[0], int(place[1])), backlog=128); "
    f"os.dup2(listening.fileno(), 3); os.set_inheritable(3, True); {_START}"
)
PORT = 1094  # on a host of its own
ATTEMPTS = 3  # Debian's xrootd 5.5 ends now and then with a segmentation fault before it listens


class XRootDServer:
    def __init__(self, folder, port=0, *, host=None):
        # It sets the mode of every folder above its own ones, so these lie directly in /tmp.
        self._own = Path(tempfile.mkdtemp(prefix="xrd", dir="/tmp"))
        self._own.chmod(0o1777)
        self._folder, self._host = folder, host
        self._address = "127.0.0.1" if host is None else host.address
        self.port = port
        for attempt in range(ATTEMPTS):
            self._start()
            try:
                self._wait()
                break
            except BaseException:
                is_fault = self._process.poll() == -signal.SIGSEGV
                if not is_fault or attempt == ATTEMPTS - 1:
                    self.end()
                    raise
        self.url = f"root://{self._address}:{self.port}/"

    def _start(self):
        with socket.socket() as listening, (self._own / "log-printed").open("w") as printed:
            options = {"cwd": self._own, "stdout": printed, "stderr": printed}
            if self._host is None:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((self._address, self.port))
                listening.listen(128)
                self.port = listening.getsockname()[1]
                start = [sys.executable, "-c", _LAUNCH, str(listening.fileno())]
                command = [*start, *self._command("127.0.0.1", "localhost")]
                options["pass_fds"] = [listening.fileno()]
                self._process = subprocess.Popen(command, **options)
            else:
                self.port = self.port or PORT
                start = [sys.executable, "-c", _LAUNCH_THERE, f"{self._address}:{self.port}"]
                self._process = self._host.popen([*start, *self._command()], **options)

    def _command(self, *allowed):
        config = self._own / "xrootd.cfg"
        hosts = "".join(f"xrd.allow host {each}\n" for each in allowed)
        config.write_text(
            f"oss.localroot {self._folder}\nall.export / r/o nolock\nall.adminpath {self._own}\n"
            f"all.pidpath {self._own}\nxrd.port {self.port}\nxrd.network nodnr norpipa\n"
            f"{hosts}xrootd.async off\n"
        )
        command = ["xrootd", "-n", "t", "-c", str(config), "-l", str(self._own / "log")]
        if os.geteuid() == 0:  # it refuses to be root: there it sees itself as another user
            user = ["--map-user=1", "--map-group=1"]
            command = ["unshare", "--user", *user, "--", *command]
        return command

    def _wait(self):
        deadline = time.monotonic() + 30
        while not self._is_ready():
            assert self._process.poll() is None, f"xrootd has ended: {self._end_of_log()}"
            assert time.monotonic() < deadline, f"xrootd is not ready: {self._end_of_log()}"
            time.sleep(0.05)  # between looks at its log

    def _log(self):
        files = [file for file in self._own.rglob("log*") if file.is_file()]
        return b"".join(file.read_bytes() for file in files).decode(errors="replace")

    def _end_of_log(self):
        return f"exit status {self._process.poll()}, {self._log()[-2000:]}"

    def _is_ready(self):
        return "initialization completed" in self._log()

    def send(self, number):
        self._process.send_signal(number)

    def end(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=20)
        shutil.rmtree(self._own, ignore_errors=True)
