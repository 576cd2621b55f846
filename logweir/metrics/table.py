"""Every metric, once: name, kind, help, labels. Processes make them by name (``registry.py``) and cannot invent one.

To add one: a row here; ``registry.get(name)`` where it is counted (what a door answers in ``tally.py``; what the exporter
reads in the ledger in ``exporter/figures.py``). A name that begins otherwise than those of its process goes into the
process's ``registry.prepare``, too, or it is absent until it is first used. Then ``python deploy/generate.py``, and
a panel (``deploy/grafana/README.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from logweir.errors import AT_THE_DOOR


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row.

    ``initial``: label values that exist from the start, so that ``increase()`` sees the first event. ``merge``: what a
    gauge of several processes of one port shows: their sum, the largest or the smallest.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    initial: tuple[tuple[str, ...], ...] = field(default=())
    merge: Literal["livesum", "livemax", "livemin"] = "livesum"


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_OUTCOMES = (("indexed",), ("duplicate",), ("filtered",), ("dead_lettered",))

METRICS = (
    Metric("logweir_build_info", Kind.GAUGE, "Always 1; the label says which version runs.", ("version",)),
    Metric(
        "logweir_ingest_requests_total",
        Kind.COUNTER,
        "Requests answered by ingest.",
        ("endpoint", "code"),
        initial=tuple(("events", str(code)) for code in sorted({202, *(problem.status for problem in AT_THE_DOOR)})),
    ),
    Metric(
        "logweir_ingest_request_duration_seconds",
        Kind.HISTOGRAM,
        "From the last byte of an accepted request to its answer, each request counted.",
        ("endpoint",),
        _SECONDS,
    ),
    Metric(
        "logweir_ingest_accepted_events_total",
        Kind.COUNTER,
        "Events answered 2xx, by where they are durable.",
        ("durable",),
        initial=(("queue",), ("spool",)),
    ),
    Metric("logweir_ingest_accepted_bytes_total", Kind.COUNTER, "Raw bytes of the events answered 2xx."),
    Metric(
        "logweir_ingest_kept_events_total",
        Kind.COUNTER,
        "Events answered 2xx though they cannot be read, by wire format: workers make dead letters of them.",
        ("format",),
        initial=(("json",), ("elasticsearch",)),
    ),
    Metric(
        "logweir_ingest_rejected_requests_total",
        Kind.COUNTER,
        "Requests refused, none of their events accepted, by the problem's code; for key_refused by its cause: key_expired or"
        " key_wrong_network.",
        ("reason",),
        initial=(("key_expired",), ("key_wrong_network",), *((problem.code,) for problem in AT_THE_DOOR)),
    ),
    Metric(
        "logweir_ingest_failed_addresses_forgotten_total",
        Kind.COUNTER,
        "Addresses whose failed attempts were forgotten because there were too many of them.",
    ),
    Metric(
        "logweir_ingest_refused_bodies_total",
        Kind.COUNTER,
        "Unreadable bodies, by whether they were kept for the operator.",
        ("kept",),
        initial=(("yes",), ("no",)),
    ),
    Metric("logweir_ingest_records_total", Kind.COUNTER, "Records written to the queue, by kind.", ("kind",)),
    Metric(
        "logweir_ingest_record_confirm_seconds",
        Kind.HISTOGRAM,
        "From handing a record to the queue to its confirmation.",
        (),
        _SECONDS,
    ),
    Metric(
        "logweir_ingest_unconfirmed_events_total",
        Kind.COUNTER,
        "Events whose sender was refused for lateness although the queue took them after all.",
    ),
    Metric(
        "logweir_ingest_queue_fill_ratio",
        Kind.GAUGE,
        "Share of the buffer that waits for the queue's confirmation, 0 to 1.",
    ),
    Metric("logweir_ingest_spool_size_bytes", Kind.GAUGE, "Bytes that wait on this machine's disk for the queue."),
    Metric(
        "logweir_ingest_spool_fill_ratio",
        Kind.GAUGE,
        "How much is taken of what a process may keep on this machine's disk, by itself or by others, 0 to 1: of the process that is"
        " fullest.",
        merge="livemax",
    ),
    Metric(
        "logweir_ingest_spool_oldest_seconds",
        Kind.GAUGE,
        "How long ago the minute ended in which the oldest record on this machine's disk was received; 0 when there is none.",
        merge="livemax",
    ),
    Metric(
        "logweir_ingest_spool_records_total",
        Kind.COUNTER,
        "Records written to the spool, and forwarded from it to the queue.",
        ("way",),
        initial=(("written",), ("forwarded",)),
    ),
    Metric("logweir_ingest_spool_failures_total", Kind.COUNTER, "Failures of the spool's disk."),
    Metric(
        "logweir_ingest_spool_damaged_bytes_total",
        Kind.COUNTER,
        "Bytes in the spool that are no records: torn off by a power cut or a kill, or by a failing disk.",
    ),
    Metric(
        "logweir_ingest_processes_died_total",
        Kind.COUNTER,
        "Ingest processes that ended without being told to; each was replaced.",
    ),
    Metric(
        "logweir_ingest_tls_certificate_expires_seconds",
        Kind.GAUGE,
        "Seconds until the served certificate expires; negative once it has.",
        ("file",),
        merge="livemin",
    ),
    Metric(
        "logweir_ingest_tls_handshakes_failed_total",
        Kind.COUNTER,
        "TLS handshakes that failed: refused (no common version, no TLS at all, or a sender that does not trust the certificate),"
        " unfinished (given up by the sender, or cut after ingest.tls_handshake_timeout_s), or crowded (ended for a newer connection, or beyond ingest.connections_max).",
        ("reason",),
        initial=(("refused",), ("unfinished",), ("crowded",)),
    ),
    Metric(
        "logweir_ingest_receipts_unanswered_total",
        Kind.COUNTER,
        "Questions about receipts that were answered 503: too many at once, or the store took too long or did not answer.",
        ("cause",),
        initial=(("busy",), ("timeout",), ("store",)),
    ),
    Metric("logweir_worker_events_total", Kind.COUNTER, "Events settled, by outcome.", ("outcome",), initial=_OUTCOMES),
    Metric(
        "logweir_worker_emitters_untracked_total",
        Kind.COUNTER,
        "Batches of emitters that are not tracked, nor watched for silence: accounting.emitters_max was reached.",
    ),
    Metric(
        "logweir_worker_sources_untracked_total",
        Kind.COUNTER,
        "Records with events of a source (category and host name) that is not watched for silence: accounting.sources_max"
        " was reached; one for each such source in it.",
    ),
    Metric(
        "logweir_worker_receipt_outcomes_unkept_total",
        Kind.COUNTER,
        "Events whose outcome is counted, but not kept for receipts: accounting.exceptions_max was reached.",
    ),
    Metric(
        "logweir_worker_dead_letters_total",
        Kind.COUNTER,
        "Dead letters kept, by reason and stage.",
        ("reason", "stage"),
        initial=(
            ("body_refused", "ingest"),
            ("record_corrupt", "decode"),
            ("event_unreadable", "decode"),
            *(("event_unfit", stage) for stage in ("normalise", "enrich", "filter")),
            ("store_refused", "index"),
            ("identity_conflict", "index"),
        ),
    ),
    Metric(
        "logweir_worker_filtered_events_total", Kind.COUNTER, "Events left out by a filter, by its rule.", ("rule",)
    ),
    Metric(
        "logweir_worker_redacted_values_total",
        Kind.COUNTER,
        "Values that were replaced by a mark before their event was stored, by the rule.",
        ("rule",),
    ),
    Metric(
        "logweir_worker_filters_stale",
        Kind.GAUGE,
        "1 while the filters file cannot be read and the rules before it are in force.",
    ),
    Metric(
        "logweir_worker_paused",
        Kind.GAUGE,
        "1 while the worker waits for somebody to act; the label says why.",
        ("reason",),
        initial=(("dead_letters_full",),),
    ),
    Metric(
        "logweir_worker_dead_letters_deleted_total",
        Kind.COUNTER,
        "Dead letters and refused bodies deleted by workers: past their retention, or (refused bodies only) for newer ones.",
        ("reason", "cause"),
    ),
    Metric("logweir_worker_records_total", Kind.COUNTER, "Records read from the queue, by kind.", ("kind",)),
    Metric(
        "logweir_worker_windows_audited_total",
        Kind.COUNTER,
        "Closed windows of which the store itself has counted the documents.",
    ),
    Metric(
        "logweir_worker_windows_unaudited_total",
        Kind.COUNTER,
        "Closed windows that the store is not asked about: too many others waited behind them.",
    ),
    Metric(
        "logweir_worker_records_repeated_total",
        Kind.COUNTER,
        "Records whose numbers were settled before; they change nothing.",
    ),
    Metric(
        "logweir_worker_offsets_expired_total",
        Kind.COUNTER,
        "Offsets that were gone from the queue before they were read.",
        ("partition",),
    ),
    Metric(
        "logweir_worker_claims_lost_total", Kind.COUNTER, "Partitions given up because another worker had claimed them."
    ),
    Metric("logweir_worker_partitions", Kind.GAUGE, "Partitions that this worker reads."),
    Metric(
        "logweir_event_latency_seconds",
        Kind.HISTOGRAM,
        "How long events took, each counted. ingest_to_queued: from their request's last byte to the answer that queue or spool"
        " has them. ingest_to_stored: from their receipt, when the request was read, to all of their bulk having its outcome.",
        ("path",),
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
    ),
    Metric("logweir_canary_sent_total", Kind.COUNTER, "Canaries that ingest sent, or was due to send and could not."),
    Metric(
        "logweir_canary_sent_timestamp_seconds",
        Kind.GAUGE,
        "When the last canary was sent, or was due and could not be, by ingest process that runs.",
        ("process",),
        merge="livemax",
    ),
    Metric(
        "logweir_canary_returned_total", Kind.COUNTER, "Canaries that came through queue and worker into the store."
    ),
    Metric(
        "logweir_canary_roundtrip_seconds",
        Kind.HISTOGRAM,
        "From sending a canary to having it in the store's ledger.",
        (),
        (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
    ),
    Metric(
        "logweir_console_rejected_requests_total",
        Kind.COUNTER,
        "Requests and connections that the console refused or ended by its limits, by the problem's code.",
        ("reason",),
    ),
    Metric("logweir_store_bulk_duration_seconds", Kind.HISTOGRAM, "How long one bulk took.", (), _SECONDS),
    Metric(
        "logweir_store_bulk_retries_total",
        Kind.COUNTER,
        "Bulks sent again, whole or in part, because the store could not take them.",
    ),
    # From here on: of the exporter, from the ledger (workers/logweir_workers/exporter/figures.py).
    Metric(
        "logweir_events_accepted_total",
        Kind.COUNTER,
        "Events answered 2xx, by the doors' markers: complete up to the oldest open window.",
    ),
    Metric("logweir_events_total", Kind.COUNTER, "Events settled, by their first outcome.", ("outcome",)),
    Metric(
        "logweir_events_corrected_total",
        Kind.COUNTER,
        "Events whose outcome a replay or a retry has changed since.",
        ("from_outcome", "to_outcome"),
    ),
    Metric(
        "logweir_events_expected_total",
        Kind.COUNTER,
        "Events that emitters have numbered. Of emitters of class unknown nobody knows, and it is not here.",
        ("class",),
    ),
    Metric(
        "logweir_events_lost_total",
        Kind.COUNTER,
        "Numbered events that never came, wherever they were lost. Of class unknown nobody knows, and it is not here.",
        ("class",),
    ),
    Metric(
        "logweir_events_lost_in_queue_total",
        Kind.COUNTER,
        "Events that the queue lost between ingest and worker; those of numbered events are also among those lost.",
    ),
    Metric(
        "logweir_events_recovered_in_queue_total",
        Kind.COUNTER,
        "Events that came after the queue was known to have lost them.",
    ),
    Metric(
        "logweir_lost_events",
        Kind.GAUGE,
        "Events lost since the ledger began, come after all or not, by where: before_ingest (numbered, less what the queue is known"
        " to have lost of them; of class unknown nobody knows, and it is not here), queue, store (fewer documents than were indexed). Class"
        " unattributed: nobody knows whose they were.",
        ("place", "class"),
    ),
    Metric(
        "logweir_events_recovered_total",
        Kind.COUNTER,
        "Numbered events that came after they were counted as lost.",
        ("class",),
    ),
    Metric(
        "logweir_events_dropped_total", Kind.COUNTER, "Events that emitters say they dropped themselves.", ("class",)
    ),
    Metric(
        "logweir_events_missing",
        Kind.GAUGE,
        "Numbered events that are awaited still: neither here nor lost.",
        ("class",),
    ),
    Metric(
        "logweir_events_unconfirmed_total",
        Kind.COUNTER,
        "Events in the queue although their sender was refused; by the doors' markers.",
    ),
    Metric(
        "logweir_events_in_flight", Kind.GAUGE, "Events accepted and not settled yet, of windows whose marker has come."
    ),
    Metric(
        "logweir_events_undecided",
        Kind.GAUGE,
        "Events of processes that are gone, which never came and of which nothing is said.",
    ),
    Metric(
        "logweir_identity_conflicts_total",
        Kind.COUNTER,
        "Events with the identity and not the content of an earlier one; they are among the dead letters.",
    ),
    Metric(
        "logweir_emitter_lost_events",
        Kind.GAUGE,
        "Events lost and not recovered, of the emitters that lost most; (others): of all others.",
        ("emitter",),
    ),
    Metric(
        "logweir_emitters",
        Kind.GAUGE,
        "Emitters, by whether they have fallen silent, and by class.",
        ("state", "class"),
    ),
    Metric(
        "logweir_sources",
        Kind.GAUGE,
        "Sources (category and host name), by whether they have fallen silent.",
        ("state",),
    ),
    Metric(
        "logweir_silence_findings",
        Kind.GAUGE,
        "Who is silent, what fell silent together counted once.",
        ("of",),
    ),
    Metric(
        "logweir_emitter_silence_seconds",
        Kind.GAUGE,
        "How long a silent emitter was not heard of while we could hear, of those silent longest; (others): the longest of all"
        " others.",
        ("emitter",),
    ),
    Metric("logweir_series_capped", Kind.GAUGE, "How many emitters are in (others), by metric.", ("metric",)),
    Metric("logweir_ledger_windows", Kind.GAUGE, "Windows in the ledger.", ("state",)),
    Metric(
        "logweir_ledger_imbalance_events",
        Kind.GAUGE,
        "Events that the books cannot explain. Anything but 0 is a fault.",
    ),
    Metric(
        "logweir_ledger_oldest_open_window_timestamp_seconds",
        Kind.GAUGE,
        "Begin of the oldest window whose marker has not come; the time of reading while there is none.",
    ),
    Metric("logweir_ledger_read_timestamp_seconds", Kind.GAUGE, "When the exporter has read all this."),
    Metric(
        "logweir_stage_watermark_timestamp_seconds",
        Kind.GAUGE,
        "Up to when everything that the queue took is settled, and is in closed windows. What waits in a door's spool is not in"
        " the queue: logweir_ingest_spool_oldest_seconds.",
        ("stage",),
    ),
    Metric(
        "logweir_queue_lag_records",
        Kind.GAUGE,
        "Records behind the group's position, whether a worker runs or not.",
        ("topic", "partition", "group"),
    ),
    Metric(
        "logweir_queue_head_age_seconds",
        Kind.GAUGE,
        "Age of the first of them; 0 when there is none.",
        ("topic", "partition", "group"),
    ),
    Metric(
        "logweir_queue_retention_used_ratio",
        Kind.GAUGE,
        "How far the first of them is on its way to being deleted before it is read, by its age or by what is behind it: 1 and it"
        " may be gone. Not there where the queue deletes nothing unread.",
        ("topic", "partition", "group"),
    ),
    Metric(
        "logweir_queue_expired_offsets_total",
        Kind.COUNTER,
        "Offsets that were gone from the topic before they were read.",
    ),
    Metric(
        "logweir_dead_letters_held", Kind.GAUGE, "Dead letters and refused bodies in the store, by reason.", ("reason",)
    ),
    Metric("logweir_dead_letters_held_bytes", Kind.GAUGE, "Raw bytes of them.", ("reason",)),
    Metric(
        "logweir_canary_last_success_timestamp_seconds",
        Kind.GAUGE,
        "When the last canary was sent that came back, by ingest process; of the last hour.",
        ("process",),
    ),
    # From here on: of the alerter.
    Metric(
        "logweir_alerter_is_active",
        Kind.GAUGE,
        "1 where rules are evaluated, 0 where a process waits for another one to be gone.",
    ),
    Metric(
        "logweir_alerter_watermark_age_seconds",
        Kind.GAUGE,
        "How long ago that came to the queue up to which all is evaluated.",
        merge="livemax",
    ),
    Metric("logweir_alerter_events_total", Kind.COUNTER, "Events that rules were asked of."),
    Metric(
        "logweir_alerter_records_missed_total",
        Kind.COUNTER,
        "Records that the queue had deleted before rules were asked of them.",
    ),
    Metric(
        "logweir_alerter_matches_total",
        Kind.COUNTER,
        "Matches of rules, by what became of them: counted, excepted, shadow, late, or unevaluated; of those that are none of these, the same event"
        " was counted before.",
        ("rule", "outcome"),
    ),
    Metric("logweir_alerter_rule_errors_total", Kind.COUNTER, "How often a rule's own code has failed.", ("rule",)),
    Metric(
        "logweir_alerter_scheduled_runs_total",
        Kind.COUNTER,
        "Runs of scheduled rules, by what came of them: done, or failed (run again).",
        ("rule", "outcome"),
    ),
    Metric("logweir_alerter_scheduled_seconds", Kind.GAUGE, "How long a scheduled rule's last run took.", ("rule",)),
    Metric("logweir_alerter_rules", Kind.GAUGE, "Rules that are evaluated."),
    Metric("logweir_alerter_rules_parked", Kind.GAUGE, "Rules that are not evaluated because their own code fails."),
    Metric("logweir_alerter_rule_files_bad", Kind.GAUGE, "Files of rules that cannot be read as they are now."),
    Metric("logweir_alerter_groups", Kind.GAUGE, "Groups of matches that are remembered."),
    Metric("logweir_alerter_open_episodes", Kind.GAUGE, "Episodes whose alerts may still change."),
    Metric("logweir_alerter_pending_alerts", Kind.GAUGE, "Alerts whose latest state is not in the store yet."),
    Metric(
        "logweir_alerter_notifications_total",
        Kind.COUNTER,
        "Tries to tell a channel something, by what came of them: sent, failed (tried again), or refused for good.",
        ("channel", "result"),
    ),
    Metric(
        "logweir_alerter_notifications_pending",
        Kind.GAUGE,
        "What a channel is still to be told.",
        ("channel",),
    ),
    Metric(
        "logweir_alerter_notifications_oldest_seconds",
        Kind.GAUGE,
        "For how long the oldest of that has been due; 0 when nothing is.",
        ("channel",),
    ),
    Metric("logweir_alerter_channels_stale", Kind.GAUGE, "1 while the file of channels cannot be read as it is now."),
    Metric(
        "logweir_alerter_checkpoint_seconds",
        Kind.HISTOGRAM,
        "How long it takes to write down how far all is evaluated.",
        (),
        _SECONDS,
    ),
)
