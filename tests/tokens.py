"""Bearer tokens as WLCG has them, in files; nobody has signed them."""

import base64
import json
import time

HOUR = 3600


def token_of(folder, seconds, mode=0o600):
    """A file with a token that is valid for so many seconds from now on."""
    body = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + seconds}).encode())
    path = folder / "token"
    path.write_text(f"e30.{body.decode().rstrip('=')}.c2ln")
    path.chmod(mode)
    return path
