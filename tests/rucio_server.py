"""Rucio's own server on loopback with a new SQLite data base; prints its URL.

It is run by an interpreter that has the package ``rucio``, with an empty folder as argument. The
client's configuration is rucio.cfg in that folder.
"""

import os
import socket
import sys
from pathlib import Path

CONFIG = """\
[common]
logdir = {folder}
loglevel = ERROR
[client]
rucio_host = {url}
auth_host = {url}
auth_type = userpass
username = someone
password = secret
account = root
auth_token_file_path = {folder}/tokens/token
[database]
default = sqlite:///{folder}/rucio.db
[bootstrap]
userpass_identity = someone
userpass_pwd = secret
userpass_email = someone@example.org
[policy]
permission = generic
support = someone@example.org
[core]
geoip_download_url = http://127.0.0.1:1/
"""


def main(folder):
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    os.environ["RUCIO_CONFIG"] = str(folder / "rucio.cfg")
    (folder / "rucio.cfg").write_text(CONFIG.format(folder=folder, url=url))
    from rucio.db.sqla import models, session, util
    from rucio.web.rest.flaskapi.v1.main import application
    from werkzeug.serving import make_server

    models.register_models(session.get_engine())
    util.create_base_vo()
    util.create_root_account()
    server = make_server("127.0.0.1", 0, application, threaded=True, fd=listening.fileno())
    print(url, flush=True)  # noqa: T201  # the test reads it
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
