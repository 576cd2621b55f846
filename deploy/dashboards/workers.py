"""Workers and lag: how far behind the queue is worked off, what becomes of the events, how the store bears it."""

from __future__ import annotations

from dashboards.table import Dashboard, Panel, Query, Row, quantiles

LAG = Row(
    "Lag",
    (
        Panel(
            "Lag in seconds",
            "Age of the first record that is not settled yet, by partition: exact, also where nobody reads and on an idle topic."
            " 0 where there is none.",
            "s",
            (
                Query(
                    "max by (topic, partition, group) (logweir_queue_head_age_seconds)",
                    "{{topic}} {{partition}} {{group}}",
                ),
            ),
            red_from=60,
            runbook="LogweirLag",
        ),
        Panel(
            "Retention used",
            "How far the first unread record is on its way to being deleted, by its age or by what is behind it: at 100 % it may be"
            " gone. Nothing is shown of the embedded queue, which deletes nothing unread.",
            "percentunit",
            (
                Query(
                    "max by (topic, partition, group) (logweir_queue_retention_used_ratio)",
                    "{{topic}} {{partition}} {{group}}",
                ),
            ),
            red_from=0.5,
            runbook="LogweirLagNearRetention",
        ),
        Panel(
            "Lag in records",
            "Records behind the group's position, by partition. A record holds one event or many.",
            "short",
            (
                Query(
                    "max by (topic, partition, group) (logweir_queue_lag_records)", "{{topic}} {{partition}} {{group}}"
                ),
            ),
            runbook="LogweirLag",
        ),
        Panel(
            "Behind ingest",
            "Age of the moment up to which everything that the queue took is settled, and is in closed windows; and of the"
            " oldest record that waits in a spool.",
            "s",
            (
                Query("time() - max by (stage) (logweir_stage_watermark_timestamp_seconds)", "{{stage}}"),
                Query("max(logweir_ingest_spool_oldest_seconds)", "in a spool"),
            ),
            red_from=120,
            runbook="LogweirFreshness",
        ),
        Panel(
            "From ingest to the store",
            "From receipt to being stored, by event.",
            "s",
            quantiles('logweir_event_latency_seconds_bucket{path="ingest_to_stored"}'),
            runbook="LogweirLag",
        ),
        Panel(
            "Stored within ten seconds",
            "Share of the events that were in the store within ten seconds of their receipt. The objective is 99 %.",
            "percentunit",
            (
                Query(
                    'sum(rate(logweir_event_latency_seconds_bucket{path="ingest_to_stored",le="10.0"}[$__rate_interval]))'
                    ' / sum(rate(logweir_event_latency_seconds_count{path="ingest_to_stored"}[$__rate_interval]))',
                    "within 10 s",
                ),
            ),
            red_below=0.99,
            runbook="LogweirLag",
        ),
        Panel(
            "Canary's round trip",
            "From an ingest process sending a canary to its being in the store's ledger.",
            "s",
            quantiles("logweir_canary_roundtrip_seconds_bucket"),
            runbook="LogweirCanaryMissing",
        ),
    ),
)

OUTCOMES = Row(
    "What becomes of the events",
    (
        Panel(
            "Settled, by outcome",
            "Events a second, by their first outcome, from the ledger: a restart changes nothing of it.",
            "cps",
            (Query("rate(logweir:events:max[$__rate_interval])", "{{outcome}}"),),
            stacked=True,
        ),
        Panel(
            "Corrected since",
            "Events per step of the graph whose outcome a replay or a retry has changed.",
            "short",
            (
                Query(
                    "increase(logweir:events_corrected:max[$__rate_interval])",
                    "{{from_outcome}} to {{to_outcome}}",
                ),
            ),
        ),
        Panel(
            "Filtered, by rule",
            "Events a second that a rule leaves out on purpose.",
            "cps",
            (Query("sum by (rule) (rate(logweir_worker_filtered_events_total[$__rate_interval]))", "{{rule}}"),),
            stacked=True,
        ),
        Panel(
            "Dead letters, by reason and stage",
            "Events a second that could not be indexed and were kept whole.",
            "cps",
            (
                Query(
                    "sum by (reason, stage) (rate(logweir_worker_dead_letters_total[$__rate_interval]))",
                    "{{reason}} at {{stage}}",
                ),
            ),
            stacked=True,
            runbook="LogweirDeadLetters",
        ),
        Panel(
            "Dead letters held",
            "Dead letters and refused bodies in the store, by reason.",
            "short",
            (Query("max by (reason) (logweir_dead_letters_held)", "{{reason}}"),),
            stacked=True,
            runbook="LogweirDeadLetters",
        ),
        Panel(
            "Size of them",
            "Bytes of the dead letters and refused bodies in the store. store.dead_letters_size_bytes_max stops the workers.",
            "bytes",
            (Query("max by (reason) (logweir_dead_letters_held_bytes)", "{{reason}}"),),
            stacked=True,
            runbook="LogweirWorkerPaused",
        ),
    ),
)

WORKERS = Row(
    "Workers",
    (
        Panel(
            "Paused",
            "Workers that wait for somebody to act, by reason.",
            "short",
            (Query("sum by (reason) (logweir_worker_paused)", "{{reason}}"),),
            red_from=1,
            runbook="LogweirWorkerPaused",
        ),
        Panel(
            "Partitions read",
            "Partitions by worker. Added up they are the topic's; one that is missing has no reader.",
            "short",
            (Query("sum by (instance) (logweir_worker_partitions)", "{{instance}}"),),
            stacked=True,
            runbook="LogweirLag",
        ),
        Panel(
            "Partitions given up",
            "Partitions per step of the graph that a worker had to give up because another one had claimed them, by worker. Now and"
            " then, when workers come or go, that is as it should be.",
            "short",
            (
                Query(
                    "sum by (instance) (increase(logweir_worker_claims_lost_total[$__rate_interval]))", "{{instance}}"
                ),
            ),
        ),
        Panel(
            "Records read",
            "Records a second, by kind.",
            "cps",
            (Query("sum by (kind) (rate(logweir_worker_records_total[$__rate_interval]))", "{{kind}}"),),
            stacked=True,
        ),
        Panel(
            "Records that came again",
            "Records a second whose numbers were settled before. They change nothing.",
            "cps",
            (Query("sum(rate(logweir_worker_records_repeated_total[$__rate_interval]))", "came again"),),
        ),
        Panel(
            "Offsets that expired unread",
            "Offsets per step of the graph that were gone from the topic before a worker had read them: retention is too short, or the"
            " workers stood still for too long.",
            "short",
            (Query("increase(logweir:queue_expired_offsets:max[$__rate_interval])", "offsets"),),
            red_from=1,
            runbook="LogweirLostInQueue",
        ),
        Panel(
            "Filters not read",
            "Workers that cannot read the filters file and keep to the rules before it.",
            "short",
            (Query("sum(logweir_worker_filters_stale)", "workers"),),
            red_from=1,
            runbook="LogweirFiltersStale",
        ),
        Panel(
            "Windows audited in the store",
            "Closed windows a minute of which the store itself has counted the documents: the third witness.",
            "cpm",
            (Query("60 * sum(rate(logweir_worker_windows_audited_total[$__rate_interval]))", "windows"),),
        ),
        Panel(
            "Outcomes not kept for receipts",
            "Events a second whose outcome is counted and not kept for receipts: accounting.exceptions_max was reached.",
            "cps",
            (Query("sum(rate(logweir_worker_receipt_outcomes_unkept_total[$__rate_interval]))", "not kept"),),
        ),
    ),
)

STORE = Row(
    "Store",
    (
        Panel(
            "How long a bulk takes",
            "From sending a bulk to the store's answer.",
            "s",
            quantiles("logweir_store_bulk_duration_seconds_bucket"),
            width=12,
        ),
        Panel(
            "Bulks sent again",
            "Bulks a second, sent again whole or in part, because the store could not take them.",
            "cps",
            (Query("sum(rate(logweir_store_bulk_retries_total[$__rate_interval]))", "sent again"),),
            width=12,
            runbook="LogweirLag",
        ),
    ),
)

DASHBOARD = Dashboard(
    "logweir-workers",
    "logweir: workers and lag",
    "How far behind the queue is worked off, what becomes of the events, how the store bears it.",
    (LAG, OUTCOMES, WORKERS, STORE),
)
