# A thread for each client.
import socket, threading

def talk(client):
    held = b""
    while data := client.recv(65536):
        *lines, held = (held + data).split(b"\n")
        client.sendall(b"".join("서버 응답: ".encode() + line + b"\n" for line in lines))
    if held:
        client.sendall("서버 응답: ".encode() + held)

def serve(client):
    with client:
        talk(client)

with socket.create_server(("127.0.0.1", 8080), backlog=128) as listener:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=[client]).start()
