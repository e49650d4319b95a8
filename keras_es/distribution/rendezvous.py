"""Workers wait for each other, for a bounded time, before TensorFlow joins them.

TensorFlow itself waits without end for a worker that does not come, in a call that no
signal interrupts, and says nothing.
"""

import contextlib
import json
import os
import selectors
import socket
import time


class WorkersError(RuntimeError):
    """The workers did not find together; the message is one line."""

    exit_code = 1


def cluster():
    """Return (addresses, own index) of the workers that TF_CONFIG names.

    Raises:
        WorkersError: If there is no TF_CONFIG, or it cannot be understood.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        jobs = {job: config["cluster"].get(job, []) for job in ("chief", "worker")}
        task = config["task"]
        index = int(task["index"]) + len(jobs["chief"]) * (task["type"] == "worker")
        addresses = jobs["chief"] + jobs["worker"]
        [addresses[index].rpartition(":")[2] for _ in jobs[task["type"]]]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise WorkersError(
            "each worker needs the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
            '"task": {"type": "worker", "index": 0}}. '
            f"Received: TF_CONFIG={text!r}"
        ) from error
    return addresses, index


def wait_for_workers(addresses, index, timeout):
    """Return when all workers answer at their addresses.

    Args:
        addresses: List of "host:port", one for each worker.
        index: Which of them this process is.
        timeout: Seconds to wait.

    Raises:
        WorkersError: If a worker did not come, or the own port is taken.
    """
    deadline = time.monotonic() + timeout
    missing = {i: a for i, a in enumerate(addresses) if i != index}
    with _answering(addresses[index]) as answer:
        while missing:
            missing = {i: a for i, a in missing.items() if not _answers(a)}
            answer(0.1)
            if missing and time.monotonic() > deadline:
                names = ", ".join(f"worker {i} at {a}" for i, a in missing.items())
                raise WorkersError(
                    f"{len(missing)} of {len(addresses)} workers did not come within "
                    f"{timeout:g} seconds: {names}"
                )


@contextlib.contextmanager
def _answering(address):
    """Accept connections at the own port, each time the given function is called."""
    port = int(address.rpartition(":")[2])
    with socket.socket() as listener, selectors.DefaultSelector() as selector:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as error:
            raise WorkersError(
                f"this worker cannot listen at {address}: {error.strerror}"
            ) from error
        listener.listen()
        selector.register(listener, selectors.EVENT_READ)

        def answer(seconds):
            if selector.select(seconds):
                listener.accept()[0].close()

        yield answer


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True
