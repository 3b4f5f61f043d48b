# Answers each line with "서버 응답: " and that line.  python3 server.py [HOST:PORT [LIMIT [SECONDS]]]
import contextlib, socket, sys, threading, time

PREFIX = "서버 응답: ".encode()
address, limit, seconds = sys.argv[1:] + ["127.0.0.1:8080", "64", "30"][len(sys.argv) - 1 :]
host, port = address.rsplit(":", 1)
places = threading.Semaphore(int(limit))  # one for each client that is served at the same time
idle, stopping = set(), threading.Event()

def talk(client, held=b""):
    since = time.monotonic()  # when the line, or the silence before it, began
    while held or not stopping.is_set():
        client.settimeout(max(0.001, since + float(seconds) - time.monotonic()))
        if not (piece := client.recv(65536)):  # some bytes: half a line, or three of them; none at all is the end
            return client.sendall(PREFIX + held if held else b"")  # the last line may lack its newline
        *lines, rest = (held + piece).split(b"\n")  # bytes, not text: half a character is no text
        since = time.monotonic() if lines or not held else since  # a deadline for a line, not for each byte
        (idle.discard if rest else idle.add)(client)  # first say so, then look at the flag again
        held = rest
        client.settimeout(float(seconds))
        client.sendall(b"".join(PREFIX + line + b"\n" for line in lines))  # all of it, also to a slow reader

def serve(client):
    idle.add(client)
    with client, contextlib.suppress(OSError): talk(client)  # a deadline or a reset ends this client only
    idle.discard(client)
    places.release()

with socket.create_server((host, int(port)), backlog=1024) as listener, contextlib.suppress(KeyboardInterrupt):
    print(f"listening on {host}:{listener.getsockname()[1]}", flush=True)
    while places.acquire():  # no place is free: whoever comes next waits in the kernel's queue
        try: threading.Thread(target=serve, args=[listener.accept()[0]]).start()
        except OSError:  # no descriptors left, perhaps: later there may be
            places.release()
            time.sleep(0.1)
stopping.set()  # Ctrl-C
for client in list(idle):
    with contextlib.suppress(OSError): client.shutdown(socket.SHUT_RD)  # wakes its thread
