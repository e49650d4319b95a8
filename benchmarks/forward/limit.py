"""A limit of the memory that a process really takes.

Limits of the system (`ulimit -v`, RLIMIT_DATA) count what is reserved and never
touched, of which compilers, allocators and threads reserve much. The peak of the
resident set counts what is touched; the system keeps it, so no peak between two looks
is missed.
"""

import os
import sys
import threading
import time

from benchmarks.timing import own_peak

EXCEEDED = 99
"""Exit code of a process that has taken more than it may."""

INTERVAL = 0.005
"""Seconds between two looks."""


def begin(mib):
    """End this process as soon as it has taken more memory than it may.

    Args:
        mib: What it may take besides the peak so far, in MiB.

    Returns:
        Function that looks at once: call it when all is done.
    """
    base = own_peak()

    def look():
        taken = own_peak() - base
        if taken > mib * 2**20:
            print(
                f"This process may take {mib:,} MiB besides its libraries and its "
                f"data, and is ended at {taken / 2**20:,.0f}.",
                file=sys.stderr,
                flush=True,
            )
            os._exit(EXCEEDED)

    def watch():
        while True:
            time.sleep(INTERVAL)
            look()

    threading.Thread(target=watch, daemon=True, name="memory limit").start()
    return look
