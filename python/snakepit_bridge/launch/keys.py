"""The files that a command of a back end reads for TLS."""

from __future__ import annotations

import argparse
import os
import ssl
from typing import NamedTuple

from .command import Failure

__all__ = ["Keys", "add_arguments", "check", "read"]

FILES = {"certificate": "backend.pem", "key": "backend.key", "clients": "authority.pem"}
"""The arguments, and the names of their files in a directory that ``snakepit certificates`` has made."""


class Keys(NamedTuple):
    """The contents of the files, in PEM."""

    key: bytes
    certificate: bytes
    clients: bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that name the files."""
    parser.add_argument(
        "--certificates", metavar="DIR", help="directory of `snakepit certificates`, for the three files below"
    )
    parser.add_argument("--certificate", metavar="FILE", help="the certificate to show, in PEM")
    parser.add_argument("--key", metavar="FILE", help="its private key, in PEM")
    parser.add_argument(
        "--clients", metavar="FILE", help="certificates of the programs that may connect, or of their authorities"
    )


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Checks the arguments, and sets those that --certificates implies.

    If an argument is wrong, the process ends with exit code 2.
    """
    given = [name for name in ("certificates", *FILES) if getattr(options, name)]
    if options.plaintext:
        if given:
            parser.error(f"--plaintext excludes --{given[0]}")
        return
    if options.certificates:
        if len(given) > 1:
            parser.error(f"--certificates excludes --{given[1]}")
        for name, file in FILES.items():
            setattr(options, name, os.path.join(options.certificates, file))
    elif len(given) < len(FILES):
        parser.error(
            "--certificates is required, or --certificate, --key and --clients; `snakepit certificates DIR` makes the "
            "files. On a loopback address --plaintext turns TLS off"
        )


def read(options: argparse.Namespace) -> Keys:
    """Reads the files. grpcio would not say what is wrong with them.

    Raises:
        Failure: A file can't be read or used.
    """
    contents = {}
    for name in FILES:
        path = getattr(options, name)
        try:
            with open(path, "rb") as file:
                contents[name] = file.read()
        except OSError as error:
            hint = f"bring {', '.join(FILES.values())} here; `snakepit certificates DIR --host HOST` makes them"
            raise Failure(f"--{name} {path}: {error.strerror}", hint if options.certificates else "") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name in ("certificate", "clients"):
        path = getattr(options, name)
        try:
            context.load_verify_locations(path)
        except ssl.SSLError as error:
            raise Failure(f"--{name} {path}: it has no certificate in PEM ({error})", "") from None
    try:
        context.load_cert_chain(options.certificate, options.key, password=lambda: "")
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            text = f"--key {options.key} is not the key of --certificate {options.certificate}"
        else:
            text = f"--key {options.key}: it has no private key in PEM without a password ({error})"
        raise Failure(text, "") from None
    return Keys(**contents)
