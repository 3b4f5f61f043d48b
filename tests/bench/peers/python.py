"""An echo server with Python's `socketserver`: a thread for each connection."""

import socketserver


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(64 * 1024):
                self.request.sendall(data)
        except ConnectionError:
            pass


class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 4096
    daemon_threads = True


with Server(("127.0.0.1", 0), Echo) as server:
    print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
