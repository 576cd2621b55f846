"""Processes of the queue tests, there to be killed: ``python -m tests.contract.queue_process consume|write JSON``."""

import itertools
import json
import sys
import threading

from logweir.config import QueueSettings
from logweir.errors import LogweirError
from logweir.queue import open_queue


def consume(settings: QueueSettings) -> None:
    """Be a member of the topic's group; print "assigned [0, 1]" and "revoked lost [0, 1]", commit nothing."""

    def assigned(partitions):
        print(f"assigned {sorted(partitions)}", flush=True)
        return {}

    def revoked(partitions, lost):
        print(f"revoked{' lost' if lost else ''} {sorted(partitions)}", flush=True)

    queue = open_queue(settings)
    consumer = queue.consumer(group=f"workers-{queue.topic}", assigned=assigned, revoked=revoked)
    while True:
        consumer.poll(wait_s=0.2, records_max=10)


def write(settings: QueueSettings) -> None:
    """Send records "0", "1", … to partition 0 as fast as they are taken; print each that is confirmed, in order."""
    producer = open_queue(settings).producer()
    room = threading.Semaphore(50)
    for number in itertools.count():
        room.acquire()

        def done(error: LogweirError | None, number: int = number) -> None:
            room.release()
            if error is None:
                print(number, flush=True)

        producer.send(0, b"%d" % number + b" " * 2000, done)


if __name__ == "__main__":
    {"consume": consume, "write": write}[sys.argv[1]](QueueSettings(**json.loads(sys.argv[2])))
