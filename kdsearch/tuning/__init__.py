"""The search on Ray Tune, which runs the trials that the study suggests."""

import os

# Before Ray is imported: it reads some of these when it is.
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Processes that it starts at once; no trial uses them.
    "RAY_prestart_worker_first_driver": "false",
    # The trials' folders are the record; Tune's own snapshots and loggers would only cost time.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # A stopped student may be in the middle of a mini-batch; with the default of 2 s the
    # next trial on the same actor would abort and the search hang.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # Signals are ours: every epoch is on disk, so that leaving at once loses nothing.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Pages of 2 MiB where Linux offers them: a step writes to all its memory again and again.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
for _key, _value in ENVIRONMENT.items():
    os.environ.setdefault(_key, _value)
