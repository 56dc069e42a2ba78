"""A dask cluster as the executor of `runs.ensure`: each worker does one run; all machines must share the same disk.

If a worker is lost, only its current epoch is lost: the scheduler gives the job to another worker, which goes on after
the last whole epoch. A worker that was only believed lost still holds the run's lock (`execution.execute`).
"""

import contextlib
import importlib.util

from rklu_lib import records


def places():
    """Return the folders of records and runs, as strings. Each worker is asked for its own."""
    return str(records.RECORDS), str(records.RUNS)


@contextlib.contextmanager
def executor(address):
    """`with executor("tcp://host:8786") as e`: a concurrent.futures executor over the workers of a dask scheduler.

    Raises ValueError without dask.distributed, for a worker with several threads, which would do several runs at once,
    or with other folders for records and runs. Raises OSError if no scheduler answers, or if it has no worker."""
    if importlib.util.find_spec("distributed") is None:
        raise ValueError("--cluster is dask's: pip install 'rklu-lib[cluster]', for the workers too")
    import distributed

    with distributed.Client(address, timeout=30) as client:
        try:
            client.wait_for_workers(1, timeout=60)
        except TimeoutError:
            raise OSError(f"{address} has no worker; start some: dask worker {address} --nthreads 1") from None
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if several := [name for name, w in workers.items() if w["nthreads"] != 1]:
            raise ValueError(f"worker {several[0]} would do several runs at once; start it with --nthreads 1")
        for name, found in client.run(places).items():
            if found != places():
                fix = "give it our RKLU_RECORDS and RKLU_RUNS, on a disk that all share"
                raise ValueError(f"worker {name} keeps its files in {' and '.join(found)}; {fix}")
        yield client.get_executor(pure=False)
