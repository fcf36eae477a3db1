"""Ray's figures: one node of two processors. `PEER_TUNED=1`: numpy arrays as batches."""

import os
import time

START = time.perf_counter()

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
HERE = os.path.dirname(os.path.abspath(__file__))

import ray

from work import BLOCK, TUNED, Peer, add, inc, inc_list, make, median, seconds, spin, touch


class Ray(Peer):
    def __init__(self):
        super().__init__("ray tuned" if TUNED else "ray")
        # Workers import `work` by this.
        os.environ["PYTHONPATH"] = HERE
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            logging_level="ERROR",
            log_to_driver=False,
            object_store_memory=1 << 30,
        )
        self.remote = {function: ray.remote(function) for function in (add, inc, inc_list, make, spin, touch)}
        assert ray.get(self.remote[inc].remote(1)) == 2
        self.put("first_result_ms", (time.perf_counter() - START) * 1e3)

    def submit(self, function, *arguments):
        return self.remote[function].remote(*arguments)

    def map(self, function, items):
        remote = self.remote[function].remote
        return [remote(item) for item in items]

    def gather(self, calls):
        return ray.get(calls)

    def bulk(self):
        data = make(BLOCK)
        sum_of_touched = touch(data)

        # One copy in shared memory does for both workers.
        def scatter():
            scattered = ray.put(data)
            return self.gather([self.submit(touch, scattered) for _ in range(2)])

        self.put("scatter2_64mib_mb_s", 2 * BLOCK / 1e6 / median(scatter, lambda got: got == [sum_of_touched] * 2))

        # What has been fetched once is there already: a new block each time. Others copy, so it is copied out of shared memory.
        rates = []
        for _ in range(3):
            made = self.submit(make, BLOCK)
            ray.wait([made], fetch_local=False)
            taken = seconds(lambda made=made: ray.get(made).copy(), lambda got: touch(got) == sum_of_touched)
            rates.append(BLOCK / 1e6 / taken)
        self.put("gather_64mib_mb_s", sorted(rates)[1])

    def close(self):
        ray.shutdown()


if __name__ == "__main__":
    peer = Ray()
    peer.run()
    peer.close()
