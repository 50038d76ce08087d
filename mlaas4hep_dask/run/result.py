"""What a run has made: its folder, its numbers, its bundle."""

from __future__ import annotations

import html
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlaas4hep_dask.bundle import Bundle
from mlaas4hep_dask.report.headlines import metric_rows


@dataclass(frozen=True)
class RunResult:
    """What a run has made.

    Parameters
    ----------
    path : Path
        The run directory.
    summary : mapping
        Counts, stages, epochs and metrics; the content of metrics.json.
    bundle : Bundle
        The exported model.
    """

    path: Path
    summary: Mapping[str, Any]
    bundle: Bundle

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.path / "report.html"

    @property
    def serve_command(self) -> str:
        """The command that serves the model, to be pasted in the current directory."""
        on_path = shutil.which("python")
        same = on_path is not None and Path(on_path).samefile(sys.executable)
        python = "python" if same else _short(Path(sys.executable))
        bundle = _short(self.path / "bundle")
        return shlex.join([python, "-m", "mlaas4hep_dask.serve", bundle])

    def _repr_html_(self) -> str:
        test = self.summary["test"]
        rows = {
            **{f"test {name}": text for name, text in metric_rows(self.summary)},
            "test events": f"{test['num_events']:,}",
            "report": str(self.report),
            "serve it": self.serve_command,
        }
        body = "".join(
            f"<tr><td>{title}</td><td>{html.escape(text)}</td></tr>" for title, text in rows.items()
        )
        name = html.escape(str(self.summary["name"]))
        return f"<p><b>Run</b> {name}</p><table><tbody>{body}</tbody></table>"


def _short(path: Path) -> str:
    """The path as one types it: relative if it is below the current directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
