"""The wire formats that the door speaks, one file each; what a format is says ``port.py``, how to add one README.md."""

from __future__ import annotations

from logweir_ingest.formats.elasticsearch import ElasticsearchFormat
from logweir_ingest.formats.json import JsonFormat
from logweir_ingest.formats.mozdef import MozdefFormat
from logweir_ingest.formats.otlp import OtlpFormat
from logweir_ingest.formats.port import Format
from logweir_ingest.formats.splunk import SplunkFormat

FORMATS: tuple[Format, ...] = (JsonFormat(), ElasticsearchFormat(), MozdefFormat(), SplunkFormat(), OtlpFormat())
