"""``python -m snakepit_bridge worker.py`` prints the commands of a worker file. If a host starts it, it serves them."""

import os
import sys

from snakepit_bridge import _boot

here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.exit(_boot.main(here, [entry for entry in sys.path[1:] if entry != here], sys.argv[1:], None))
