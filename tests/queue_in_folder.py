"""A batch system in a folder: commands as SLURM's, which do what files there say."""

# A queue in a folder: a file for each job, whose content is state, reason and name.
SBATCH = """#!/bin/sh
PATH=/usr/bin:/bin
for script; do :; done
cd "{folder}" && echo "$script" >> asked && number=$(($(wc -l < asked)))
test -e refusing && echo "you have as many as you may" >&2 && exit 1
name=$(sed -n 's/^#SBATCH -J //p' "$script")
echo "RUNNING|None|${{name:-$(basename "$script" .sh)}}" > "job-$number"
test -e slow && exec sleep 1000
test -e lost && echo "sbatch: error: Socket timed out on send/recv operation" >&2 && exit 1
test -e busy && sleep 0.5
echo "Submitted batch job $number"
"""
SQUEUE = """#!/bin/sh
PATH=/usr/bin:/bin
cd "{folder}"
test -e garbled && echo "slurm_load_jobs: something" && exit 0
for each in job-*; do test -e $each && echo "${{each#job-}}|$(cat $each)"; done
exit 0
"""
SCANCEL = """#!/bin/sh
PATH=/usr/bin:/bin
cd "{folder}" && echo "$@" >> cancelled
test -e deaf && echo "scancel: error: Unable to contact slurm controller" >&2 && exit 1
for each; do rm -f "job-$each"; done
"""


def commands_in(parent, monkeypatch):
    """The folder of the queue, whose commands are all that is on PATH."""
    commands, folder = parent / "bin", parent / "queue"
    commands.mkdir()
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
        (commands / name).write_text(text.format(folder=folder))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands))
    return folder


def command(place, name, text):
    """Another command in the place of one."""
    file = place.parent / "bin" / name
    file.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n")
    file.chmod(0o755)


def jobs(place):
    """Names of the jobs in the queue."""
    return {file.read_text().split("|")[2].strip() for file in place.glob("job-*")}
