"""Flow, one screen: is anything being lost, where, since when."""

from __future__ import annotations

from dashboards.table import Dashboard, Panel, Query, Row

NOW = Row(
    "Is anything being lost?",
    (
        Panel(
            "Lost",
            "Numbered events that were lost in the chosen range of time and have not come since, by class: exact"
            " where the emitter numbers its events, from_fields where they bring numbers of their own. While older ones"
            " come after all it is the most that it can be. What emitters of class unknown lost before ingest nobody"
            " knows: it is in no figure here, and it is not 0.",
            "short",
            (
                Query(
                    'increase(logweir:events_lost:max{class=~"$class"}[$__range]) < logweir:events_lost:net{class=~"$class"}'
                    ' or logweir:events_lost:net{class=~"$class"}',
                    "class {{class}}",
                ),
            ),
            kind="stat",
            width=4,
            height=4,
            red_from=0.5,
            no_value="unknown",
            runbook="LogweirLossExact",
        ),
        Panel(
            "Lost in the queue",
            "Events that were answered 2xx and that the queue lost between ingest and worker in the chosen range of time, of all classes;"
            " also those that came after all.",
            "short",
            (Query("increase(logweir:events_lost_in_queue:max[$__range])", "lost in the queue"),),
            kind="stat",
            width=4,
            height=4,
            red_from=0.5,
            runbook="LogweirLostInQueue",
        ),
        Panel(
            "Error budget left, 30 days",
            "What is left of one numbered event in 10,000 that may be lost in 30 days. Below 0, more were.",
            "percentunit",
            (
                Query(
                    '1 - sum(clamp_min(increase(logweir:events_lost:max{class=~"$class"}[30d])'
                    ' < logweir:events_lost:net{class=~"$class"} or logweir:events_lost:net{class=~"$class"}, 0))'
                    ' / clamp_min(sum(increase(logweir:events_expected:max{class=~"$class"}[30d])), 1) / 0.0001',
                    "left",
                ),
            ),
            kind="stat",
            width=4,
            height=4,
            red_below=0.25,
            runbook="LogweirLossBudgetBurn",
        ),
        Panel(
            "Books do not balance by",
            "Events that the two sides of the books differ by in closed windows. It must be 0, always.",
            "short",
            (Query("max(logweir_ledger_imbalance_events)", "events"),),
            kind="stat",
            width=3,
            height=4,
            red_from=1,
            runbook="LogweirLedgerImbalance",
        ),
        Panel(
            "Stored up to",
            "Age of the moment up to which everything that the queue took is settled. What waits in a spool is not in"
            " the queue.",
            "s",
            (Query('time() - max(logweir_stage_watermark_timestamp_seconds{stage="settled"})', "ago"),),
            kind="stat",
            width=3,
            height=4,
            red_from=120,
            runbook="LogweirFreshness",
        ),
        Panel(
            "Last canary back",
            "How long ago the last canary was sent that came through queue and worker into the store, of the ingest process of"
            " which it is longest ago. Each sends one every ten seconds, unless ingest.canary_interval_s says otherwise.",
            "s",
            (
                Query(
                    "time() - min(max by (process) (logweir_canary_last_success_timestamp_seconds)"
                    " and on (process) logweir_canary_sent_timestamp_seconds)",
                    "ago",
                ),
            ),
            kind="stat",
            width=3,
            height=4,
            red_from=90,
            runbook="LogweirCanaryMissing",
        ),
        Panel(
            "Figures read",
            "Age of the exporter's last reading of the ledger. Everything on this screen is at least that old.",
            "s",
            (Query("time() - max(logweir_ledger_read_timestamp_seconds)", "ago"),),
            kind="stat",
            width=3,
            height=4,
            red_from=120,
            runbook="LogweirExporterStale",
        ),
    ),
)

WHERE = Row(
    "Where, and since when?",
    (
        Panel(
            "Not stored, by where",
            "Events a second that did not become a document, from the front to the back: dropped by the emitter itself; numbered"
            " and never come, by class (of class unknown nobody knows); lost in the queue, of all classes, the numbered ones among"
            " those of A and B; dead letters; filtered on purpose.",
            "cps",
            (
                Query(
                    'rate(logweir:events_dropped:max{class=~"$class"}[$__rate_interval])',
                    "dropped by the emitter, class {{class}}",
                ),
                Query(
                    'rate(logweir:events_lost:max{class=~"$class"}[$__rate_interval])', "never come, class {{class}}"
                ),
                Query("rate(logweir:events_lost_in_queue:max[$__rate_interval])", "lost in the queue"),
                Query('rate(logweir:events:max{outcome=~"dead_lettered|filtered"}[$__rate_interval])', "{{outcome}}"),
            ),
            runbook="LogweirLossFastBurn",
        ),
        Panel(
            "Share lost",
            "Share of the numbered events that was lost, by class; nothing where none was created. The objective is one in 10,000 over 30 days; LogweirLossFastBurn"
            " speaks at 14.4 times that.",
            "percentunit",
            (
                Query(
                    'clamp_max(rate(logweir:events_lost:max{class=~"$class"}[$__rate_interval])'
                    ' / rate(logweir:events_expected:max{class=~"$class"}[$__rate_interval]), 1)',
                    "class {{class}}",
                ),
            ),
            red_from=0.00144,
            runbook="LogweirLossFastBurn",
        ),
        Panel(
            "Through the pipeline",
            "Events a second: answered 2xx by ingest, and settled by the workers. The two lines lie on each other, the"
            " second a moment later; what is between them waits in the queue.",
            "cps",
            (
                Query("sum(rate(logweir_ingest_accepted_events_total[$__rate_interval]))", "accepted"),
                Query("sum(rate(logweir:events:max[$__rate_interval]))", "settled"),
            ),
            runbook="LogweirFreshness",
        ),
        Panel(
            "Windows that are not balanced",
            "Windows (a minute of an ingest process on a partition), by state: open; process_gone, the process of which"
            " ended without its last word; closed_afterwards, when its successor or a person has spoken it. Unbalanced ones must not be.",
            "short",
            (Query('max by (state) (logweir_ledger_windows{state!="balanced"})', "{{state}}"),),
            stacked=True,
            runbook="LogweirLedgerImbalance",
        ),
        Panel(
            "Age of the oldest open window",
            "An ingest process closes its window a moment after the minute ends. Older than two minutes: its marker is in a spool or in"
            " the queue; much older: the process died without one.",
            "s",
            (Query("time() - max(logweir_ledger_oldest_open_window_timestamp_seconds)", "oldest open window"),),
            runbook="LogweirFreshness",
        ),
        Panel(
            "Alerts, and since when",
            "What Prometheus has pending or firing, with the time at which it began.",
            "dateTimeAsIso",
            (Query('max by (alertname, severity) (ALERTS_FOR_STATE{alertname=~"Logweir.+"}) * 1000', ""),),
            kind="table",
        ),
    ),
)

BOOKS = Row(
    "The books, in all",
    (
        Panel(
            "The first equation",
            "accepted + unconfirmed = indexed + duplicate + filtered + dead-lettered + in flight + lost in the queue + undecided,"
            " in events since the ledger began. What ingest says is there when a window closes, up to two minutes later than"
            " the workers'.",
            "short",
            (
                Query("max(logweir_events_accepted_total)", "accepted"),
                Query("max(logweir_events_unconfirmed_total)", "unconfirmed"),
                Query("max by (outcome) (logweir_events_total)", "{{outcome}}"),
                Query("max(logweir_events_in_flight)", "in flight"),
                Query(
                    "max(logweir_events_lost_in_queue_total) - max(logweir_events_recovered_in_queue_total)",
                    "lost in the queue",
                ),
                Query("max(logweir_events_undecided)", "undecided"),
            ),
            kind="stat",
            width=8,
            height=5,
            runbook="LogweirLedgerImbalance",
        ),
        Panel(
            "The second equation",
            "created = accepted + dropped + lost - recovered + missing, in events since the ledger began, of the emitters that"
            " number their events.",
            "short",
            (
                Query('sum(max by (class) (logweir_events_expected_total{class=~"$class"}))', "created"),
                Query('sum(max by (class) (logweir_events_dropped_total{class=~"$class"}))', "dropped"),
                Query('sum(max by (class) (logweir_events_lost_total{class=~"$class"}))', "lost"),
                Query('sum(max by (class) (logweir_events_recovered_total{class=~"$class"}))', "recovered"),
                Query('sum(max by (class) (logweir_events_missing{class=~"$class"}))', "missing"),
            ),
            kind="stat",
            width=8,
            height=5,
            no_value="unknown",
            runbook="LogweirLossExact",
        ),
        Panel(
            "Lost, by place and class",
            "Events lost since the ledger began, come after all or not: before ingest (of class unknown nobody knows, and it is not 0), in"
            " the queue, or gone from the store, which has fewer documents than were indexed. Class unknown: nobody knows whose.",
            "short",
            (
                Query(
                    'max by (place, class) (logweir_lost_events{class=~"$class|unknown"})', "{{place}}, class {{class}}"
                ),
            ),
            kind="stat",
            width=8,
            height=5,
            runbook="LogweirLossFastBurn",
        ),
    ),
)

DASHBOARD = Dashboard(
    "logweir-flow", "logweir: flow", "Is anything being lost, where, since when.", (NOW, WHERE, BOOKS), by_class=True
)
