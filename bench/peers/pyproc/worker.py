"""A worker of pyproc. Its only function of ours returns the body of the request."""

import logging

logging.disable(logging.INFO)  # pyproc logs each function and each connection

from pyproc_worker import expose, run_worker  # noqa: E402


@expose
def echo(req):
    return req


if __name__ == "__main__":
    run_worker()
