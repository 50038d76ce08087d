"""Certificates of an authority of a test's own, and Dask's settings that name them."""

import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)


def make_certificates(folder):
    """Variables of the environment for whoever is to take part, with new files in a new folder."""
    folder.mkdir(mode=0o700)
    authority, everybody = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _name("authority of a test")
    chain = _certificate(issuer, issuer, authority, authority, is_authority=True)
    own = _certificate(_name("dask"), issuer, everybody, authority, is_authority=False)
    secret = everybody.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(folder / "authority.pem", chain)
    _write(folder / "own.pem", own)
    _write(folder / "own.key", secret)
    stem = "DASK_DISTRIBUTED__COMM"
    roles = ("CLIENT", "SCHEDULER", "WORKER")
    return {
        f"{stem}__REQUIRE_ENCRYPTION": "True",
        f"{stem}__TLS__CA_FILE": str(folder / "authority.pem"),
        **{f"{stem}__TLS__{role}__CERT": str(folder / "own.pem") for role in roles},
        **{f"{stem}__TLS__{role}__KEY": str(folder / "own.key") for role in roles},
    }


def _write(path, content):
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _name(common):
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _certificate(subject, issuer, key, signer, *, is_authority):
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)
