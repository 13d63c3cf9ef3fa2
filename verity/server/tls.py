"""Loads a TLS certificate and its private key before the server listens. Errors say which file is wrong, and why."""

from __future__ import annotations

import ssl
from pathlib import Path


class TlsError(Exception):
    """The certificate or the key can't be used; the message says why."""


def load_tls(certificate: str, key: str, password: str | None) -> ssl.SSLContext:
    """Make a server's TLS context, for TLS 1.2 and up.

    Args:
        certificate: a PEM file with the certificate, followed by the intermediate certificates.
        key: a PEM file with the certificate's private key.
        password: the password of the key, if it is encrypted.

    Raises:
        TlsError: a file can't be read or used.
    """
    for what, file in (("certificate", certificate), ("key", key)):
        try:
            text = Path(file).read_bytes()
        except OSError as error:
            raise TlsError(f"The TLS {what} {file!r} can't be read: {error.strerror}.") from None
        if b"-----BEGIN " not in text:
            raise TlsError(f"The TLS {what} {file!r} is not a PEM file; it has no line that begins with -----BEGIN.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    asked = []

    def give_password() -> str:
        asked.append(True)  # without this function OpenSSL would prompt on the terminal
        return password or ""

    try:
        context.load_cert_chain(certificate, key, give_password)
    except (ssl.SSLError, ValueError) as error:
        if asked:
            wrong = "is wrong" if password else "is missing"
            raise TlsError(f"The TLS key {key!r} is encrypted, and VERITY_TLS_KEY_PASSWORD {wrong}.") from None
        if "MISMATCH" in str(error):
            raise TlsError(f"The TLS key {key!r} is not the key of the certificate {certificate!r}.") from None
        raise TlsError(f"The TLS certificate {certificate!r} and key {key!r} can't be used: {error}.") from None
    return context
