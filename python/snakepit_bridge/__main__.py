"""``python -m snakepit_bridge worker.py`` prints the commands of a worker file. If a host starts it, it serves them.

A back end starts this file itself, so that its own copy of the package serves, wherever that is.
"""

import os
import sys

package = os.path.dirname(os.path.abspath(__file__))
here = os.path.dirname(package)
original = [entry for entry in sys.path[1:] if entry != here]
if __spec__ is None:  # this file was started; its directory in sys.path would hide the package grpc
    original = [entry for entry in sys.path if os.path.abspath(entry) not in (package, here)]
    # Stray files in PYTHONPATH take no module's place until the bridge has booted.
    stray = {os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    sys.path[:] = [here, *sorted(original, key=lambda entry: os.path.abspath(entry) in stray)]

from snakepit_bridge import _boot  # noqa: E402

sys.exit(_boot.main(here, original, sys.argv[1:], None))
