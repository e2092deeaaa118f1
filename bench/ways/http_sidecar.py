"""POST /function with the arguments in JSON. A generator's items come as lines in chunks."""

import base64
import inspect
import json
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import functions


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections
    disable_nagle_algorithm = True
    wbufsize = -1  # header and body in one write

    def do_POST(self):
        args = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            result = getattr(functions, self.path[1:])(**args)
        except Exception:
            self.reply(500, traceback.format_exc().encode())
            return
        if inspect.isgenerator(result):
            self.stream(result)
        else:
            self.reply(200, encode(result))

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, items):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for item in items:
            line = encode(item)
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args):
        pass


def encode(value):
    return json.dumps(value, default=lambda data: base64.b64encode(data).decode()).encode() + b"\n"


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
