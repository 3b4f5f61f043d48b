# A server, step by step: tutorial/en/your-server.md
import contextlib, socket, sys, threading, time

PREFIX = "서버 응답: ".encode()
LONGEST = 65536  # bytes of a line
address, limit, seconds = sys.argv[1:] + ["127.0.0.1:8080", "64", "30"][len(sys.argv) - 1 :]
host, port = address.rsplit(":", 1)
places = threading.Semaphore(int(limit))  # one for each client that is served at the same time

def receive(client, deadline):
    client.settimeout(max(0.001, deadline - time.monotonic()))
    return client.recv(65536)

def talk(client):
    held = b""  # the beginning of a line whose end has not come yet
    since = time.monotonic()  # when that line, or the silence before it, began
    while data := receive(client, since + float(seconds)):
        *lines, rest = (held + data).split(b"\n")
        if lines or not held:
            since = time.monotonic()
        held = rest
        client.settimeout(float(seconds))
        if len(held) > LONGEST:
            return client.sendall(f"too long: a line may have at most {LONGEST} bytes\n".encode())
        client.sendall(b"".join(PREFIX + line + b"\n" for line in lines))
    if held:  # the last line may lack its newline
        client.sendall(PREFIX + held)

def serve(client):
    try:
        with client:
            talk(client)
    except OSError as error:  # a deadline, or a reset, ends this client only
        print(f"a client is gone: {error}", file=sys.stderr)
    finally:
        places.release()

with socket.create_server((host, int(port)), backlog=1024) as listener, contextlib.suppress(KeyboardInterrupt):
    print(f"listening on {host}:{listener.getsockname()[1]}", flush=True)
    while places.acquire():  # no place is free: whoever comes next waits in the kernel's queue
        client, _ = listener.accept()
        threading.Thread(target=serve, args=[client]).start()
