"""The bare loop over JSON lines: one request, one reply, nothing else."""

import json
import sys

replies = sys.stdout.buffer
for line in sys.stdin.buffer:
    request = json.loads(line)
    replies.write(json.dumps({"id": request["id"], "result": request["args"]}).encode() + b"\n")
    replies.flush()
