"""JSON lines that carry bytes in base64: decodes them, as a handler needs them, and encodes them again."""

import base64
import json
import sys

replies = sys.stdout.buffer
for line in sys.stdin.buffer:
    data = base64.b64decode(json.loads(line)["data"])
    replies.write(json.dumps({"data": base64.b64encode(data).decode()}).encode() + b"\n")
    replies.flush()
