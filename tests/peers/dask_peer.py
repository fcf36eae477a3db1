"""Dask's figures: two worker processes of one thread each. `PEER_TUNED=1`: without queuing at the scheduler, and numpy arrays as batches."""

import time

START = time.perf_counter()

import logging

import dask
from distributed import Client, LocalCluster, wait

from work import BLOCK, TUNED, Peer, inc, make, median, touch


class Dask(Peer):
    def __init__(self):
        super().__init__("dask tuned" if TUNED else "dask")
        if TUNED:
            dask.config.set({"distributed.scheduler.worker-saturation": float("inf")})
        self.cluster = LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
        self.client = Client(self.cluster)
        assert self.client.submit(inc, 1).result() == 2
        self.put("first_result_ms", (time.perf_counter() - START) * 1e3)

    def submit(self, function, *arguments):
        return self.client.submit(function, *arguments, pure=False)

    def map(self, function, items):
        return self.client.map(function, items, pure=False)

    def gather(self, calls):
        return self.client.gather(calls)

    def bulk(self):
        data = make(BLOCK)
        sum_of_touched = touch(data)
        workers = list(self.client.scheduler_info()["workers"])

        def scatter():
            scattered = self.client.scatter(data, broadcast=True, hash=False)
            return self.gather([self.client.submit(touch, scattered, workers=[worker], pure=False) for worker in workers])

        self.put("scatter2_64mib_mb_s", 2 * BLOCK / 1e6 / median(scatter, lambda got: got == [sum_of_touched] * 2))

        made = self.submit(make, BLOCK)
        wait(made)
        self.put("gather_64mib_mb_s", BLOCK / 1e6 / median(made.result, lambda got: touch(got) == sum_of_touched))

    def close(self):
        self.client.close()
        self.cluster.close()


if __name__ == "__main__":
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    peer = Dask()
    peer.run()
    peer.close()
