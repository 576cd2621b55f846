"""The door that one writes in an afternoon: Flask under threads; each request one record, answered once Kafka has it.

BENCH_KAFKA names the broker, BENCH_TOPIC the topic.
"""

import functools
import gzip
import json
import os

import kafka
from flask import Flask, request

app = Flask(__name__)


@functools.cache
def _producer() -> kafka.KafkaProducer:
    # Not at import: gunicorn forks after it.
    return kafka.KafkaProducer(bootstrap_servers=os.environ["BENCH_KAFKA"], acks="all")


@app.post("/events")
def events() -> tuple[dict[str, int], int]:
    body = request.get_data()
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    found = json.loads(body)
    _producer().send(os.environ["BENCH_TOPIC"], body).get(10)
    return {"accepted": len(found) if isinstance(found, list) else 1}, 202
