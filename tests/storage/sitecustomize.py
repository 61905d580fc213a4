"""Python imports this at its start, if this folder is on PYTHONPATH: see `watched_disk`."""

from watched_disk import Plan, WatchedDisk

plan = Plan.from_environment()
if plan is not None:
    DISK = WatchedDisk(plan)
    DISK.install()
