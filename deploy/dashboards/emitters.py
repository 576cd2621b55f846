"""Emitters: who sends, who has fallen silent, who loses."""

from __future__ import annotations

from dashboards.table import Dashboard, Panel, Query, Row

STATES = Row(
    "Who sends",
    (
        Panel(
            "Emitters by state",
            "Of every emitter the ledger knows how often it is usually heard of, or is told. Our own downtime makes nobody silent.",
            "short",
            (Query('sum by (state) (max by (state, class) (logweir_emitters{class=~"$class"}))', "{{state}}"),),
            stacked=True,
            runbook="LogweirSilence",
        ),
        Panel(
            "Sources by state",
            "The same of every source: a category from a host, whoever sends it.",
            "short",
            (Query("max by (state) (logweir_sources)", "{{state}}"),),
            stacked=True,
            runbook="LogweirSilence",
        ),
        Panel(
            "Silent longest",
            "For how long the twenty emitters that have been silent longest were not heard of, while we could hear.",
            "s",
            (Query("topk(20, max by (emitter) (logweir_emitter_silence_seconds))", ""),),
            kind="table",
            runbook="LogweirSilence",
        ),
        Panel(
            "Findings of silence",
            "What fell silent together (behind one network, ingest process or key, or on one host) is one finding.",
            "short",
            (Query("max by (of) (logweir_silence_findings)", "{{of}}"),),
            red_from=1,
            runbook="LogweirSilence",
        ),
        Panel(
            "Created",
            "Events a second that emitters have numbered, sent or not, by class. Of class unknown nobody knows.",
            "cps",
            (
                Query(
                    'rate(logweir:events_expected:max{class=~"$class"}[$__rate_interval])',
                    "class {{class}}",
                ),
            ),
        ),
    ),
)

LOSSES = Row(
    "Who loses",
    (
        Panel(
            "Lost and recovered",
            "Events per step of the graph: lost, and recovered (came after they were counted as lost), by class. Of class unknown nobody knows.",
            "short",
            (
                Query(
                    'increase(logweir:events_lost:max{class=~"$class"}[$__rate_interval])',
                    "lost, class {{class}}",
                ),
                Query(
                    'increase(logweir:events_recovered:max{class=~"$class"}[$__rate_interval])',
                    "recovered, class {{class}}",
                ),
            ),
            runbook="LogweirLossExact",
        ),
        Panel(
            "Dropped by the emitters themselves",
            "Events a second that emitters say they dropped (Log-Dropped), by class: their buffer was full, or their disk.",
            "cps",
            (
                Query(
                    'rate(logweir:events_dropped:max{class=~"$class"}[$__rate_interval])',
                    "class {{class}}",
                ),
            ),
            runbook="LogweirLossExact",
        ),
        Panel(
            "Missing",
            "Numbered events below the highest known number that have not come and are not late yet. After"
            " accounting.late_after_s they are lost.",
            "short",
            (Query('max by (class) (logweir_events_missing{class=~"$class"})', "class {{class}}"),),
        ),
        Panel(
            "Worst emitters",
            "Events lost, less those recovered, since the ledger began, of the twenty that lost most. (others) is all emitters"
            " without a series of their own (exporter.emitters_max).",
            "short",
            (Query("topk(20, max by (emitter) (logweir_emitter_lost_events))", ""),),
            kind="table",
            height=9,
            runbook="LogweirLossExact",
        ),
        Panel(
            "Emitters without a series of their own",
            "How many are summed up in (others), by metric. `logweir emitters` lists them all.",
            "short",
            (Query("max by (metric) (logweir_series_capped)", "{{metric}}"),),
            height=9,
        ),
        Panel(
            "Beyond the limits",
            "A second: batches of emitters that are neither tracked nor watched (accounting.emitters_max), and records of"
            " sources that are not watched for silence (accounting.sources_max).",
            "cps",
            (
                Query("sum(rate(logweir_worker_emitters_untracked_total[$__rate_interval]))", "batches of emitters"),
                Query("sum(rate(logweir_worker_sources_untracked_total[$__rate_interval]))", "records of sources"),
            ),
            height=9,
            red_from=0.001,
        ),
        Panel(
            "Identity conflicts",
            "Events per step of the graph with the key, emitter, epoch and number of another one, and another content: a cloned machine.",
            "short",
            (Query("increase(logweir:identity_conflicts:max[$__rate_interval])", "conflicts"),),
            height=9,
            red_from=1,
            runbook="LogweirIdentityConflicts",
        ),
    ),
)

DASHBOARD = Dashboard(
    "logweir-emitters",
    "logweir: emitters",
    "Who sends, who has fallen silent, who loses.",
    (STATES, LOSSES),
    by_class=True,
)
