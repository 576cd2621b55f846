"""The alerter: whether every rule is asked of every event, how soon, what rules find, and whether people are told."""

from __future__ import annotations

from dashboards.table import Dashboard, Panel, Query, Row, quantiles

ASKED = Row(
    "Whether rules are asked",
    (
        Panel(
            "Behind the queue",
            "Age of the moment up to which rules were asked of everything that came to the queue, by process. An alert comes so"
            " much later.",
            "s",
            (Query("max by (instance) (logweir_alerter_watermark_age_seconds)", "{{instance}}"),),
            red_from=120,
            runbook="LogweirAlerterBehind",
        ),
        Panel(
            "Evaluating",
            "1 for a process that evaluates rules, 0 for one that waits for another to be gone. One for each shard has to be 1.",
            "short",
            (Query("max by (instance) (logweir_alerter_is_active)", "{{instance}}"),),
            red_below=1,
            runbook="LogweirAlerterBehind",
        ),
        Panel(
            "Events that rules were asked of",
            "Events a second, by process.",
            "cps",
            (Query("sum by (instance) (rate(logweir_alerter_events_total[$__rate_interval]))", "{{instance}}"),),
            stacked=True,
        ),
        Panel(
            "Records that no rule was asked of",
            "Records per step of the graph that the queue had deleted before rules were asked of them.",
            "short",
            (Query("sum(increase(logweir_alerter_records_missed_total[$__rate_interval]))", "records"),),
            red_from=1,
            runbook="LogweirAlerterMissed",
        ),
        Panel(
            "Matches that were not counted",
            "Matches per step of the graph that no alert can come of, by rule: the rule is parked, or has no room for more"
            " groups.",
            "short",
            (
                Query(
                    'sum by (rule) (increase(logweir_alerter_matches_total{outcome="unevaluated"}[$__rate_interval]))',
                    "{{rule}}",
                ),
            ),
            red_from=1,
            runbook="LogweirAlerterMissed",
        ),
        Panel(
            "Rules parked, files not read",
            "Rules that are not evaluated because their own code fails, and files of rules that cannot be read as they are now.",
            "short",
            (
                Query("max(logweir_alerter_rules_parked)", "rules parked"),
                Query("max(logweir_alerter_rule_files_bad)", "files not read"),
            ),
            red_from=1,
            runbook="LogweirRulesBroken",
        ),
    ),
)

FOUND = Row(
    "What rules find",
    (
        Panel(
            "Matches, by rule",
            "Events a second for which a rule's condition holds.",
            "cps",
            (
                Query(
                    'sum by (rule) (rate(logweir_alerter_matches_total{outcome!="unevaluated"}[$__rate_interval]))',
                    "{{rule}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Open episodes",
            "Episodes whose alerts may still change.",
            "short",
            (Query("sum(logweir_alerter_open_episodes)", "episodes"),),
        ),
        Panel(
            "Alerts to be written",
            "Alerts whose latest state is not in the store yet. More and more: the store does not take them.",
            "short",
            (Query("sum(logweir_alerter_pending_alerts)", "alerts"),),
            runbook="LogweirAlerterBehind",
        ),
        Panel(
            "Groups remembered",
            "Groups of matches in memory, and in the checkpoint. Beyond alerts.groups_max new ones are not counted.",
            "short",
            (Query("sum by (instance) (logweir_alerter_groups)", "{{instance}}"),),
            runbook="LogweirAlerterMissed",
        ),
        Panel(
            "Rules",
            "Rules that are evaluated, by process.",
            "short",
            (Query("max by (instance) (logweir_alerter_rules)", "{{instance}}"),),
        ),
        Panel(
            "How long a checkpoint takes",
            "From beginning to write down how far all is evaluated to the store's answer. Nothing is evaluated meanwhile.",
            "s",
            quantiles("logweir_alerter_checkpoint_seconds_bucket"),
        ),
    ),
)

TOLD = Row(
    "Whether people are told",
    (
        Panel(
            "Notices, by channel and result",
            "Tries a second to tell a channel something: sent, failed and to be tried again, or refused for good.",
            "cps",
            (
                Query(
                    "sum by (channel, result) (rate(logweir_alerter_notifications_total[$__rate_interval]))",
                    "{{channel}} {{result}}",
                ),
            ),
            stacked=True,
            width=12,
        ),
        Panel(
            "Still to be told",
            "Notices that a channel is still to be told, by channel.",
            "short",
            (Query("max by (channel) (logweir_alerter_notifications_pending)", "{{channel}}"),),
            width=12,
            runbook="LogweirNobodyTold",
        ),
        Panel(
            "Oldest notice that is due",
            "For how long the oldest of these has been due, by channel: it grows whatever is wrong.",
            "s",
            (Query("max by (channel) (logweir_alerter_notifications_oldest_seconds)", "{{channel}}"),),
            red_from=300,
            width=12,
            runbook="LogweirNobodyTold",
        ),
        Panel(
            "File of channels not read",
            "1 while alerts.channels_file cannot be read as it is now, and channels are told as it said before.",
            "short",
            (Query("max(logweir_alerter_channels_stale)", "not read"),),
            red_from=1,
            width=12,
            runbook="LogweirNobodyTold",
        ),
    ),
)

DASHBOARD = Dashboard(
    "logweir-alerter",
    "logweir: alerter",
    "Whether every rule is asked of every event, how soon, what rules find, and whether people are told.",
    (ASKED, FOUND, TOLD),
)
