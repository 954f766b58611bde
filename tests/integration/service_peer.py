"""Either end of connections through a Service, on standard library alone: it runs in network namespaces.

service_peer.py serve ADDRESS PORT          answers each line with who asked, as JSON
service_peer.py ask ADDRESS PORT COUNT N    COUNT connections with N requests each; a line of JSON a request
"""

import json
import socket
import socketserver
import sys
import time


class Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in self.rfile:
            said = {
                "peer": self.client_address,
                "own": self.connection.getsockname(),
                "time_ns": time.time_ns(),
            }
            self.wfile.write(json.dumps(said).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024


def ask(address: tuple[str, int], connections: int, requests: int) -> None:
    for _ in range(connections):
        before_ns = time.time_ns()
        try:
            connection = socket.create_connection(address, timeout=5)
        except OSError as error:
            failed = {"before_ns": before_ns, "error": error.errno, "after_ns": time.time_ns()}
            print(json.dumps(failed))
            continue
        with connection, connection.makefile("rwb") as lines:
            connected_ns = time.time_ns()
            for number in range(requests):
                lines.write(b"?\n")
                lines.flush()
                said = json.loads(lines.readline())
                said |= {
                    "local": connection.getsockname(),
                    "number": number,
                    "before_ns": before_ns,
                    "connected_ns": connected_ns,
                    "after_ns": time.time_ns(),
                }
                print(json.dumps(said))


if __name__ == "__main__":
    what, host, port, *rest = sys.argv[1:]
    if what == "serve":
        with Server((host, int(port)), Answer) as server:
            server.serve_forever()
    else:
        ask((host, int(port)), *map(int, rest))
