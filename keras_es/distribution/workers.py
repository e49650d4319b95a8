"""The processes of a strategy of several workers: how they meet, and what they tell.

TensorFlow itself waits without end for a worker that does not come, in a call that no
signal interrupts, and says nothing. So workers wait for each other here, for a bounded
time, before TensorFlow joins them.
"""

import contextlib
import hashlib
import json
import os
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from keras_es.distribution.collectives import in_multi_worker


class WorkersError(RuntimeError):
    """The workers did not find together; the message is one line."""

    exit_code = 1


EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def cluster() -> tuple[list[str], int]:
    """Return (addresses, own index) of the workers that TF_CONFIG names.

    Raises:
        ClusterConfigError: If there is no TF_CONFIG, or it cannot be understood.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        jobs = {job: config["cluster"].get(job, []) for job in ("chief", "worker")}
        task = config["task"]
        addresses = jobs["chief"] + jobs["worker"]
        for address in addresses:
            _port(address)
        if len(set(addresses)) < len(addresses):
            raise _ClusterError("two workers have the same address")
        own, index = jobs[task["type"]], int(task["index"])
        if not 0 <= index < len(own):
            raise _ClusterError(f"index {index} is not one of {len(own)} workers")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
        problem = f" ({e})" if isinstance(e, _ClusterError) else ""
        raise ClusterConfigError(
            "each worker needs the environment variable TF_CONFIG, such as "
            f"{EXAMPLE}{problem}. Received: TF_CONFIG={text!r}"
        ) from e
    return addresses, addresses.index(own[index])


class ClusterConfigError(WorkersError):
    """TF_CONFIG is missing or wrong."""

    exit_code = 2


class _ClusterError(ValueError):
    """What is wrong with a TF_CONFIG that has all its parts."""


def _port(address: str) -> int:
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise _ClusterError(
            f"expected host:port with a port from 1 to 65535, not {address!r}"
        )
    return int(port)


def wait_for_workers(addresses: list[str], index: int, timeout: float) -> None:
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
    port = _port(address)
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


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether this process is the one of all workers that writes files."""
    if not in_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    if "chief" in resolver.cluster_spec().jobs:
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0


def tell_workers(
    strategy: tf.distribute.Strategy, numbers: Iterable[float]
) -> list[list[float]]:
    """Return the numbers that each worker has told, after all have come here.

    Args:
        strategy: The strategy.
        numbers: List of numbers below 2**53, of the same length on each worker.

    Returns:
        A list with the list of each worker.
    """
    numbers = [float(n) for n in numbers]
    if not in_multi_worker(strategy):
        return [numbers]

    def gather(row):
        context = tf.distribute.get_replica_context()
        return context.all_gather(row[None], axis=0)

    rows = tf.function(lambda row: strategy.run(gather, args=(row,)), autograph=False)
    rows = strategy.experimental_local_results(rows(tf.constant(numbers, tf.float64)))
    return rows[0].numpy().tolist()


def check_same(strategy: tf.distribute.Strategy, config: dict[str, Any]) -> None:
    """Check that all workers were given the same configuration.

    Args:
        strategy: The strategy.
        config: Dict that JSON can hold.

    Raises:
        WorkersError: If they were not.
    """
    text = json.dumps(config, sort_keys=True)
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
    told = [row[0] for row in tell_workers(strategy, [digest])]
    if len(set(told)) > 1:
        raise WorkersError(
            "the workers were given different flags; start all of them by one command. "
            f"Received: {sum(t != told[0] for t in told)} that differ from worker 0"
        )


@contextlib.contextmanager
def losses_named(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turn what TensorFlow raises when a worker is lost into a `WorkersError`."""
    try:
        yield
    except tf.errors.OpError as error:
        if not in_multi_worker(strategy):
            raise
        reason = " ".join(str(error.message).split())
        reason = reason.partition("Collective ops is aborted by: ")[2] or reason
        raise WorkersError(
            "another worker was lost; start all of them again, and the same command "
            f"goes on from the last checkpoint ({reason[:150]})"
        ) from error
