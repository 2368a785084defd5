import io
import socket

import pytest

from margincast.core.errors import InputError
from margincast.serving.live.listener import Listener, read_feed, send_rows
from margincast.serving.live.receipt import Receipt


class Taker:
    def __init__(self):
        self.lines = []

    def __call__(self, lines):
        lines = list(lines)
        self.lines += lines
        bad = sum(line == b"bad" for line in lines)
        return Receipt(len(lines) - bad, {"bad": bad} if bad else {}, 0)


def test_a_feed_is_read_to_its_end_and_what_became_of_it_is_added_up():
    taker = Taker()
    feed = io.BufferedReader(io.BytesIO(b"one\nbad\r\n" + b"x" * 50 + b"\nlast"))
    assert read_feed(feed, taker, 10) == Receipt(3, {"bad": 1}, 0)
    assert taker.lines == [b"one", b"bad", b"x" * 12, b"last"]  # too long, and seen to be


def test_the_socket_takes_rows_and_says_what_became_of_them(tmp_path):
    taker = Taker()
    path = tmp_path / "events.sock"
    listener = Listener(path, taker, 100)
    assert send_rows(path, b"one\nbad\n") == Receipt(1, {"bad": 1}, 0)
    with pytest.raises(InputError, match="another live engine listens there"):
        Listener(path, taker, 100)
    # a client that leaves in the middle takes nobody with him
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        client.sendall(b"half a li")
    assert send_rows(path, b"two\n").taken == 1
    listener.close()
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        send_rows(path, b"three\n")


def test_a_socket_left_behind_is_replaced(tmp_path):
    path = tmp_path / "events.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
    listener = Listener(path, Taker(), 100)
    assert send_rows(path, b"one\n").taken == 1
    listener.close()
