"""For processes that tests fork from a server: what they log is delivered before they end.

A spawned process does that by `atexit`, which `multiprocessing` leaves out for forks of a server.
"""

from multiprocessing import util

from siqvl.tracking import background


def deliver() -> None:
    for key, own in list(background._BACKGROUNDS.items()):
        background._at_exit(key, own._patience)


def _begin(_: object) -> None:
    util.Finalize(None, deliver, exitpriority=1)


util.register_after_fork(deliver, _begin)
