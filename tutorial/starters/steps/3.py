# A server, step by step: tutorial/en/your-server.md
import contextlib, socket, sys, threading, time

PREFIX = "서버 응답: ".encode()
address, limit, seconds = sys.argv[1:] + ["127.0.0.1:8080", "64", "30"][len(sys.argv) - 1 :]
host, port = address.rsplit(":", 1)

def talk(client):
    held = b""  # the beginning of a line whose end has not come yet
    while data := client.recv(65536):
        *lines, held = (held + data).split(b"\n")
        client.sendall(b"".join(PREFIX + line + b"\n" for line in lines))
    if held:  # the last line may lack its newline
        client.sendall(PREFIX + held)

with socket.create_server((host, int(port)), backlog=1024) as listener, contextlib.suppress(KeyboardInterrupt):
    print(f"listening on {host}:{listener.getsockname()[1]}", flush=True)
    while True:
        client, _ = listener.accept()
        with client:
            talk(client)
