"""Starts processes that are the workers of one strategy, for a bounded time."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_ports(count):
    """Return ports that nobody listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Workers:
    """Workers on the loopback; killed at the end of the `with` block at the latest.

    Args:
        count: Number of workers in TF_CONFIG.
        command: What each runs, after the name of the interpreter.
        absent: Workers that do not come.
        cwd: Folder to run in.
        environment: Further environment variables.
    """

    def __init__(self, count, *command, absent=(), cwd=ROOT, **environment):
        addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
        self.cwd, self.processes = cwd, {}
        for index in set(range(count)) - set(absent):
            task = {"type": "worker", "index": index}
            config = {"cluster": {"worker": addresses}, "task": task}
            self.processes[index] = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=cwd,
                env=os.environ
                | {"TF_CONFIG": json.dumps(config), "PYTHONPATH": str(ROOT)}
                | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
                | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.communicate()

    def end(self, seconds=600):
        """Wait for all; return the list of (exit code, stdout, stderr)."""
        deadline = time.monotonic() + seconds
        done = []
        for process in self.processes.values():
            left = max(deadline - time.monotonic(), 0.1)
            output, errors = process.communicate(timeout=left)
            done.append((process.returncode, output, errors))
        return done

    def wait_for(self, condition, seconds=200):
        """Wait until a condition of the file system holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = [p.poll() for p in self.processes.values()]
            if time.monotonic() > deadline or any(code is not None for code in ended):
                raise AssertionError(f"did not come to pass; exit codes {ended}")
            time.sleep(0.02)


def run_workers(count, *command, **kwargs):
    """Run workers that are expected to succeed; return what each printed."""
    with Workers(count, *command, **kwargs) as workers:
        done = workers.end()
    for index, (code, _, errors) in enumerate(done):
        assert code == 0, f"worker {index} of {count}: {errors[-3000:]}"
    return [output for _, output, _ in done]
