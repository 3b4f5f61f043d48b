# One client, to its end; then the next.
import socket

def talk(client):
    while data := client.recv(1024):
        client.sendall("서버 응답: ".encode() + data)

with socket.create_server(("127.0.0.1", 8080)) as listener:
    while True:
        client, _ = listener.accept()
        with client:
            talk(client)
