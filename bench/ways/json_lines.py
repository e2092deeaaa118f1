"""One request a line on standard input, and its replies on standard output."""

import base64
import inspect
import json
import sys
import traceback

import functions


def reply(**message):
    print(json.dumps(message, default=lambda data: base64.b64encode(data).decode()), flush=True)


for line in sys.stdin:
    request = json.loads(line)
    try:
        result = getattr(functions, request["function"])(**request["args"])
        if inspect.isgenerator(result):
            for item in result:
                reply(item=item)
            result = None
        reply(result=result)
    except Exception:
        reply(error=traceback.format_exc())
