"""An indexer in a process of its own, for tests that kill it: ``python indexer_process.py INDEX FOLDER [COMMAND]``."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from standin import StandIn

import kogata
from kogata.ask.indexing import rebuilding, run
from kogata.ask.indexing.report import ProgressEvent


def main() -> None:
    index_path, folder, command = sys.argv[1:4]
    run.BATCH = rebuilding.BATCH = 4
    if command.startswith("limit="):
        limit = int(command.removeprefix("limit="))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    print("ready", flush=True)
    try:
        if command == "rebuild":
            kogata.Index(index_path, model=StandIn("standin-2")).rebuild(progress=tell)
        elif command == "hold":
            kogata.Index(index_path, model=StandIn()).add(folder, workers=1, progress=lambda event: time.sleep(60))
        elif command.startswith("die_after="):
            number = int(command.removeprefix("die_after="))
            kogata.Index(index_path, model=StandIn()).add(folder, workers=1, progress=lambda event: die(event, number))
        else:
            kogata.Index(index_path, model=StandIn()).add(folder, workers=1, progress=tell)
    except kogata.KogataError as error:
        print(f"{type(error).__name__}: {error} | {error.hint}", flush=True)
        sys.exit(1)


def tell(event: ProgressEvent) -> None:
    """A line for every event, so that a test can tell how far this is."""
    print(".", flush=True)


def die(event: ProgressEvent, number: int) -> None:
    if (event.phase, event.done) == ("reading", number):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
