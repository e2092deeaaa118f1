"""Makes the key and the certificate of one worker."""

from __future__ import annotations

from typing import NamedTuple

from snakepit_bridge._errors import Unavailable
from snakepit_bridge._remedy import install

__all__ = ["Certificate", "make_certificate"]


class Certificate(NamedTuple):
    """A private key, and the certificate that the key itself has signed."""

    key: str  # PKCS #8 in PEM
    pem: str  # the certificate
    der: bytes  # the same


def make_certificate() -> Certificate:
    """Makes a new key, and a certificate for localhost and the loopback addresses.

    Whoever connects compares the certificate as a whole, so its names do not matter. It does not expire: without the
    key it is of no use.

    Raises:
        Unavailable: The package cryptography can't be imported.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except BaseException as error:  # a broken installation may raise anything
        raise Unavailable(
            f"cryptography cannot be imported: {type(error).__name__}: {error}", install("'cryptography>=42'")
        ) from error
    import datetime
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "snakepit")])
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
        x509.IPAddress(ipaddress.IPv6Address("::1")),
    ]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    no_use = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(1970, 1, 1))  # a clock that is set back must not make it invalid
        .not_valid_after(datetime.datetime(9999, 12, 31, 23, 59, 59))
        .add_extension(x509.KeyUsage(digital_signature=True, **no_use), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(
        private.decode(),
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        certificate.public_bytes(serialization.Encoding.DER),
    )
