# A server, step by step: tutorial/en/your-server.md
import contextlib, socket, sys, threading, time

PREFIX = "서버 응답: ".encode()
address, limit, seconds = sys.argv[1:] + ["127.0.0.1:8080", "64", "30"][len(sys.argv) - 1 :]
host, port = address.rsplit(":", 1)

with socket.create_server((host, int(port)), backlog=1024) as listener, contextlib.suppress(KeyboardInterrupt):
    print(f"listening on {host}:{listener.getsockname()[1]}", flush=True)
    while True:
        client, _ = listener.accept()
        data = client.recv(1024)
        client.sendall(PREFIX + data)
