"""The application of the server as uvicorn serves it, without limits of connections."""

from __future__ import annotations

import sys

import uvicorn

from mlaas4hep_dask.serve import build_app

if __name__ == "__main__":
    uvicorn.run(
        build_app(sys.argv[1]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        http="httptools",
        loop="uvloop",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
