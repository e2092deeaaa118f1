"""The host starts this file: ``python <this file> worker.py args...``. With ``-m module args...`` it runs a module.

This file's directory is first in sys.path. The directories of PYTHONPATH are behind the standard library and the
installed packages until the bridge has booted. So a stray ``json.py`` or ``grpc.py`` there can't take the place of a
module that the bridge imports.
"""

import os
import sys

if sys.version_info < (3, 8):  # noqa: UP036 (every Python can parse this file, so an old one prints this message)
    message = "Python %d.%d is too old for a worker: it needs 3.8 or later" % sys.version_info[:2]  # noqa: UP031
    sys.stderr.write("%s (this is %s)\n" % (message, sys.executable))  # noqa: UP031
    if os.environ.get("SNAKEPIT_CONTROL_FD"):
        remedy = "make a new virtual environment, or set SNAKEPIT_PYTHON to a newer Python"
        failed = '{"type": "RuntimeError", "message": "%s"}' % message  # noqa: UP031
        report = '{"failed": %s, "remedy": "%s"}\n' % (failed, remedy)  # noqa: UP031
        os.write(int(os.environ["SNAKEPIT_CONTROL_FD"]), report.encode("ascii"))
    sys.exit(1)

here = os.path.dirname(os.path.abspath(__file__))
stray = {os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
original = sys.path[os.path.abspath(sys.path[0]) == here :]  # PYTHONSAFEPATH keeps Python from putting it there
sys.path[:] = [here] + sorted(original, key=lambda entry: os.path.abspath(entry) in stray)  # noqa: RUF005 (see above)
cache = os.environ.get("SNAKEPIT_CACHE")
own = not sys.pycache_prefix  # compiled files go to the host's directories
written = here if os.access(here, os.W_OK) else cache
if cache and own and written == cache:
    sys.pycache_prefix = os.path.join(cache, "pycache")

# PYTHONDONTWRITEBYTECODE is common in images. Without compiled files half of a start would go into compiling the
# bridge. The host's directories are not the user's, so they are made there, and for this package only.
if sys.dont_write_bytecode and cache and own and os.access(written, os.W_OK):
    from importlib.util import cache_from_source

    package = os.path.join(here, "snakepit_bridge")
    if not os.path.exists(cache_from_source(os.path.join(package, "transport.py"))):  # the last one to be made
        import compileall

        compileall.compile_dir(package, quiet=2)

# A start-up hook may have imported another copy of the bridge: this one serves, and boot warns.
other = getattr(sys.modules.get("snakepit_bridge"), "__file__", None)
if other is not None and os.path.dirname(os.path.dirname(os.path.abspath(other))) != here:
    for module in [name for name in sys.modules if name.split(".")[0] == "snakepit_bridge"]:
        del sys.modules[module]
else:
    other = None

if sys.argv[1:2] == ["-m"]:  # a command of the bridge, such as snakepit_bridge.serve
    import runpy

    module = sys.argv.pop(2)
    del sys.argv[1]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()

from snakepit_bridge import _boot  # noqa: E402

sys.exit(_boot.main(here, original, sys.argv[1:], other))
