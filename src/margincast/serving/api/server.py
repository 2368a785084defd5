"""The processes of the service: one parent that holds the port, and workers that answer.

Responsible for workers that share one port, are started again when they die, and end when they are
told to, after the requests that are open.
"""

import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors import Multiprocess

from margincast.core.errors import InputError
from margincast.serving.api.protocol import limited
from margincast.specs.service import Address, Service

if TYPE_CHECKING:
    from margincast.serving.api.guard import Guard

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(process)d %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {
        "margincast": {"handlers": ["stderr"], "level": "INFO"},
        # what callers send is not worth a line each: it is counted
        "uvicorn.error": {"handlers": ["stderr"], "level": "ERROR"},
    },
}
_BUCKETS = "rate"


def listen(address: Address) -> socket.socket:
    """Return the socket of an address, which all workers will accept from.

    Raises:
        InputError: the address is taken, or none of this machine.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on {address.host}:{address.port} ({error.strerror or error}); end what "
            "listens there, or change [address] of the service"
        ) from error
    listener.set_inheritable(True)
    return listener


def run(service: Service, workspace: Path, listener: socket.socket) -> bool:
    """Serve until told to end; return whether the workers could start.

    Args:
        service: the configuration.
        workspace: where its paths start.
        listener: where callers come in.
    """
    limits = service.limits
    with tempfile.TemporaryDirectory(prefix="margincast-serve-") as folder:
        counts = Path(folder, "counts")
        counts.mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counts)
        config = Config(
            partial(worker, service, workspace, Path(folder)),
            factory=True,
            workers=service.address.workers,
            loop="uvloop",
            http=limited(limits),  # type: ignore[arg-type]  # any callable that makes a protocol
            ws="none",
            lifespan="on",
            log_config=LOGGING,
            access_log=False,
            server_header=False,
            # whom a proxy speaks for must not be anybody's word
            proxy_headers=False,
            timeout_keep_alive=int(limits.idle_time.total_seconds()),
            timeout_graceful_shutdown=int(limits.drain_time.total_seconds()),
        )
        supervisor = Multiprocess(config, sockets=[listener])
        supervisor.run()
    return all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)


def worker(service: Service, workspace: Path, folder: Path) -> "Guard":
    """Return the application of one worker.

    Args:
        service: the configuration.
        workspace: where its paths start.
        folder: what the workers share while they run.
    """
    # the parent starts sooner without what only workers need
    from margincast.serving.api.app import create_app  # noqa: PLC0415
    from margincast.serving.api.rate import RateLimit  # noqa: PLC0415
    from margincast.serving.api.state import State  # noqa: PLC0415

    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    limits = service.limits
    rate = RateLimit(folder / _BUCKETS, limits.requests_per_second, limits.burst)
    return create_app(State(service, workspace, rate))


def _end_with_parent() -> None:
    """End this worker when the process that started it is gone, however it went.

    Nobody could stop it else, and it would hold the port.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
