"""Ingest: what is asked of it, what it refuses, how quick it is, and where it keeps what it cannot pass on."""

from __future__ import annotations

from dashboards.table import Dashboard, Panel, Query, Row, quantiles

ANSWERS = Row(
    "Answers",
    (
        Panel(
            "Requests, by answer",
            "Requests a second, by endpoint and HTTP status.",
            "reqps",
            (
                Query(
                    "sum by (endpoint, code) (rate(logweir_ingest_requests_total[$__rate_interval])) > 0",
                    "{{endpoint}} {{code}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Refused, by reason",
            "Requests a second of which no event was accepted, by the problem's code. docs/reference/problems.md has each.",
            "reqps",
            (
                Query(
                    "sum by (reason) (rate(logweir_ingest_rejected_requests_total[$__rate_interval])) > 0", "{{reason}}"
                ),
            ),
            stacked=True,
            no_value="none",
            runbook="LogweirRejecting",
        ),
        Panel(
            "How long an answer to events takes",
            "From the last byte of a request with events to its answer. It waits for the queue, or for the disk.",
            "s",
            quantiles('logweir_ingest_request_duration_seconds_bucket{endpoint="events"}'),
        ),
        Panel(
            "Events accepted, by where they are safe",
            "Events a second that were answered 2xx: because the queue has them, or because this machine's disk has.",
            "cps",
            (Query("sum by (durable) (rate(logweir_ingest_accepted_events_total[$__rate_interval]))", "{{durable}}"),),
            stacked=True,
        ),
        Panel(
            "Bytes accepted",
            "Raw bytes a second of the events answered 2xx.",
            "Bps",
            (Query("sum by (instance) (rate(logweir_ingest_accepted_bytes_total[$__rate_interval]))", "{{instance}}"),),
            stacked=True,
        ),
        Panel(
            "Unreadable bodies",
            "Requests a second with a good key and a body that could not be read, by whether the beginning was kept for you;"
            " and events a second that were accepted though they cannot be read, of senders that a refusal would stop.",
            "reqps",
            (
                Query("sum by (kept) (rate(logweir_ingest_refused_bodies_total[$__rate_interval]))", "kept: {{kept}}"),
                Query(
                    "sum by (format) (rate(logweir_ingest_kept_events_total[$__rate_interval]))", "events: {{format}}"
                ),
            ),
            runbook="LogweirRejecting",
        ),
    ),
)

QUEUE = Row(
    "Into the queue",
    (
        Panel(
            "From ingest into the queue",
            "From a request's last byte to the answer that queue or spool has its events, by event.",
            "s",
            quantiles('logweir_event_latency_seconds_bucket{path="ingest_to_queued"}'),
        ),
        Panel(
            "How long the queue takes to confirm",
            "From handing a record to the queue to its confirmation.",
            "s",
            quantiles("logweir_ingest_record_confirm_seconds_bucket"),
        ),
        Panel(
            "Records written, by kind",
            "Records a second that the queue has confirmed.",
            "cps",
            (Query("sum by (kind) (rate(logweir_ingest_records_total[$__rate_interval]))", "{{kind}}"),),
            stacked=True,
        ),
        Panel(
            "Buffer that waits for the queue",
            "Share of the buffer (queue.buffer_size_bytes_max) that waits for confirmation. Full: records go to the spool.",
            "percentunit",
            (Query("max by (instance) (logweir_ingest_queue_fill_ratio)", "{{instance}}"),),
            red_from=0.8,
            runbook="LogweirSpoolFilling",
        ),
        Panel(
            "Canaries sent and returned",
            "Canaries a minute that ingest processes sent, or could not, and that workers had back. Both lines are the same.",
            "cpm",
            (
                Query("60 * sum(rate(logweir_canary_sent_total[$__rate_interval]))", "sent"),
                Query("60 * sum(rate(logweir_canary_returned_total[$__rate_interval]))", "returned"),
            ),
            runbook="LogweirCanaryMissing",
        ),
        Panel(
            "Taken although refused",
            "Events per step of the graph that the queue took after their sender had been told 503. They are stored and were not promised.",
            "short",
            (Query("sum(increase(logweir_ingest_unconfirmed_events_total[$__rate_interval]))", "events"),),
        ),
        Panel(
            "Receipts not answered",
            "Questions a second about receipts that were answered 503, by cause.",
            "reqps",
            (Query("sum by (cause) (rate(logweir_ingest_receipts_unanswered_total[$__rate_interval]))", "{{cause}}"),),
        ),
    ),
)

SPOOL = Row(
    "Spool",
    (
        Panel(
            "Spool fill",
            "Share of the room that a process has on this machine's disk which is taken, by its own records or others', of the"
            " process that is fullest. Full: it answers 503.",
            "percentunit",
            (Query("max by (instance) (logweir_ingest_spool_fill_ratio)", "{{instance}}"),),
            width=6,
            red_from=0.8,
            runbook="LogweirSpoolFilling",
        ),
        Panel(
            "Time until the spool is full",
            "At the pace of the last half hour. A week is the longest shown, also where nothing is written.",
            "s",
            (
                Query(
                    "clamp_max((1 - max by (instance) (logweir_ingest_spool_fill_ratio))"
                    " / clamp_min(max by (instance) (deriv(logweir_ingest_spool_fill_ratio[30m])), 1e-9), 604800)",
                    "{{instance}}",
                ),
            ),
            width=6,
            red_below=14400,
            runbook="LogweirSpoolFilling",
        ),
        Panel(
            "Bytes in the spool",
            "Bytes on this machine's disk that wait for the queue.",
            "bytes",
            (Query("sum by (instance) (logweir_ingest_spool_size_bytes)", "{{instance}}"),),
            width=6,
            runbook="LogweirSpoolFilling",
        ),
        Panel(
            "Oldest record in the spool",
            "How long ago the minute ended in which the oldest record that waits was received.",
            "s",
            (Query("max by (instance) (logweir_ingest_spool_oldest_seconds)", "{{instance}}"),),
            width=6,
            red_from=120,
            runbook="LogweirFreshness",
        ),
        Panel(
            "Records through the spool",
            "Records a second, written to the spool and forwarded from it to the queue.",
            "cps",
            (Query("sum by (way) (rate(logweir_ingest_spool_records_total[$__rate_interval]))", "{{way}}"),),
            width=6,
            runbook="LogweirSpoolFilling",
        ),
        Panel(
            "Failures of the spool's disk",
            "Failures per step of the graph. Ingest answers 503 for what it cannot write.",
            "short",
            (
                Query(
                    "sum by (instance) (increase(logweir_ingest_spool_failures_total[$__rate_interval]))",
                    "{{instance}}",
                ),
            ),
            width=6,
            red_from=1,
            runbook="LogweirSpoolFailing",
        ),
        Panel(
            "Damage in the spool",
            "Bytes per step of the graph that are no records: torn off by a power cut, a kill or a failing disk.",
            "bytes",
            (
                Query(
                    "sum by (instance) (increase(logweir_ingest_spool_damaged_bytes_total[$__rate_interval]))",
                    "{{instance}}",
                ),
            ),
            width=6,
            red_from=1,
            runbook="LogweirSpoolFailing",
        ),
        Panel(
            "Processes that died",
            "Ingest processes, per step of the graph, that ended without being told to. Each was replaced.",
            "short",
            (
                Query(
                    "sum by (instance) (increase(logweir_ingest_processes_died_total[$__rate_interval]))",
                    "{{instance}}",
                ),
            ),
            width=6,
            red_from=1,
            runbook="LogweirProcessesDying",
        ),
    ),
)

TLS = Row(
    "Who may come in",
    (
        Panel(
            "Time until a certificate expires",
            "Of each certificate that ingest serves. Nothing is shown where another program ends TLS.",
            "s",
            (
                Query(
                    "min by (instance, file) (logweir_ingest_tls_certificate_expires_seconds)", "{{instance}} {{file}}"
                ),
            ),
            red_below=1209600,
            no_value="no TLS here",
            runbook="LogweirCertificateExpires",
        ),
        Panel(
            "TLS handshakes that failed",
            "Handshakes a second, by reason.",
            "cps",
            (
                Query(
                    "sum by (reason) (rate(logweir_ingest_tls_handshakes_failed_total[$__rate_interval]))", "{{reason}}"
                ),
            ),
            stacked=True,
            runbook="LogweirRejecting",
        ),
        Panel(
            "Refused by the console",
            "Requests and connections a second that the console refused by its limits, by the problem's code.",
            "reqps",
            (Query("sum by (reason) (rate(logweir_console_rejected_requests_total[$__rate_interval]))", "{{reason}}"),),
            stacked=True,
            no_value="none",
        ),
        Panel(
            "Addresses forgotten",
            "Addresses per step of the graph whose failed attempts were forgotten because there were too many of them.",
            "short",
            (
                Query(
                    "sum by (instance) (increase(logweir_ingest_failed_addresses_forgotten_total[$__rate_interval]))",
                    "{{instance}}",
                ),
            ),
            runbook="LogweirRejecting",
        ),
    ),
)

DASHBOARD = Dashboard(
    "logweir-ingest",
    "logweir: ingest",
    "What is asked of ingest, what it refuses, how quick it is, where it keeps what it cannot pass on.",
    (ANSWERS, QUEUE, SPOOL, TLS),
)
