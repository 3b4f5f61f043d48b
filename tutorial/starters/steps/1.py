# The first try: accept a client, read what it says, answer.
import socket

with socket.create_server(("127.0.0.1", 8080)) as listener:
    while True:
        client, _ = listener.accept()
        data = client.recv(1024)
        client.sendall("서버 응답: ".encode() + data)
