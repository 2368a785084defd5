"""A door before a server that can be shut: an outage that comes and goes, on real sockets."""

import contextlib
import socket
import threading


class Gate:
    """Listens on a port of its own and passes everything on to another one, while it is open."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._connections: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        assert self._listener is not None
        listener, self._listener = self._listener, None
        # a thread waits in accept(): closing alone would leave the port listening until it returns
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in list(self._connections):
            self._drop(connection)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._connections |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for connection in (source, sink):
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._connections.discard(connection)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
