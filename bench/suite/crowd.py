"""Many connections that are there and do nothing: kept alive after a request, or open as WebSockets."""

import asyncio
import base64
import hashlib
import os
import socket
import threading

from .processes import Failed
from .scripted_provider import HOST

# So many come from one address, as of people behind one router.
FROM_ONE_ADDRESS = 250
# What bench-tools upstream answers to /bytes/16.
BODY = b"0123456789ABCDEF"
# A text frame as a browser sends it (RFC 6455 5.2): final, masked with zeros, five bytes.
FRAME = b"\x81\x85\x00\x00\x00\x00hello"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Crowd:
    """Connections to one port; they close at the end of the `with` block."""

    def __init__(self, port, cookie=""):
        self.port, self.cookie, self.sockets = port, cookie, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.sockets:
            connection.close()

    def keep_alive(self, count):
        """Connections that had an answer and wait for the next request."""
        request = self.request("/public/bytes/16")
        for _ in range(count):
            connection = self.connect()
            connection.sendall(request)
            read_until(connection, BODY)

    def web_sockets(self, count):
        """WebSockets over each of which a message went there and back."""
        key = base64.b64encode(os.urandom(16)).decode("ascii")
        request = self.request("/socket", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}",
                               "Sec-WebSocket-Version: 13", f"Origin: http://{HOST}:{self.port}")
        for _ in range(count):
            connection = self.connect()
            connection.sendall(request)
            head = read_until(connection, b"\r\n\r\n")
            if b" 101 " not in head.splitlines()[0]:
                raise Failed(f"no WebSocket, but {head.splitlines()[0].decode('latin-1')}")
            connection.sendall(FRAME)
            read_until(connection, FRAME)

    def request(self, path, *fields):
        cookies = [f"Cookie: {self.cookie}"] if self.cookie else []
        lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}:{self.port}", *fields, *cookies, "", ""]
        return "\r\n".join(lines).encode("ascii")

    def connect(self):
        source = f"127.1.{len(self.sockets) // FROM_ONE_ADDRESS}.1"
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20, source_address=(source, 0))
        self.sockets.append(connection)
        return connection


def read_until(connection, end):
    """Reads as much as ends so."""
    read = b""
    while not read.endswith(end):
        piece = connection.recv(4096)
        if not piece:
            raise Failed(f"a connection was closed behind {read[-200:]!r}")
        read += piece
    return read


class Echo:
    """An application with a WebSocket: what comes goes back, byte for byte. Any other request is answered with BODY."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024))
        self.port = server.sockets[0].getsockname()[1]
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    async def serve(self, reader, writer):
        try:
            while (answer := answer_to(await reader.readuntil(b"\r\n\r\n"))):
                writer.write(answer)
                if answer.startswith(b"HTTP/1.1 101"):
                    break
            while (data := await reader.read(4096)):
                writer.write(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


def answer_to(head):
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    key = next((value for name, value in fields.items() if name.lower() == b"sec-websocket-key"), None)
    if not key:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + BODY
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    return (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
