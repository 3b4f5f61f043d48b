# A server, step by step: tutorial/en/your-server.md
import socket, sys

[address] = sys.argv[1:] or ["127.0.0.1:8080"]
host, port = address.rsplit(":", 1)

with socket.create_server((host, int(port)), backlog=1024) as listener:
    print(f"listening on {host}:{listener.getsockname()[1]}", flush=True)
    while True:
        client, _ = listener.accept()
        data = client.recv(1024)
        client.sendall("서버 응답: ".encode() + data)
