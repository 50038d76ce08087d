"""Makes a virtual environment for each peer, with a torch that needs no GPU.

torch comes first and alone, in the version that this package is tested with: what a peer asks for
is then there, and its other needs bring no CUDA libraries. On Linux, pass
``--extra-index-url https://download.pytorch.org/whl/cpu`` on to pip unless the index has CPU files.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
PEERS = ("weaver-core", "f9columnar", "ROOT")
TORCH = "torch==2.13.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the environments go, one folder each")
    parser.add_argument("pip", nargs="*", help="more arguments for pip, after --")
    parsed = parser.parse_args()
    for peer in PEERS:
        folder = parsed.folder / peer
        if not (folder / "bin" / "python").exists():
            venv.create(folder, with_pip=True)
        install = [folder / "bin" / "python", "-m", "pip", "install", *parsed.pip]
        subprocess.run([*install, TORCH], check=True)
        listed = HERE / f"requirements-{peer}.txt"
        subprocess.run([*install, TORCH, "-r", listed], check=True)
        print(f"{peer}: {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
