# Lines, and not pieces.
import socket

def talk(client):
    held = b""  # the beginning of a line whose end has not come yet
    while data := client.recv(65536):
        *lines, held = (held + data).split(b"\n")
        client.sendall(b"".join("서버 응답: ".encode() + line + b"\n" for line in lines))
    if held:
        client.sendall("서버 응답: ".encode() + held)

with socket.create_server(("127.0.0.1", 8080)) as listener:
    while True:
        client, _ = listener.accept()
        with client:
            talk(client)
