"""Every problem that a user meets, once: code, HTTP status, text with the numbers, what to do, and whether to try again.

A problem becomes an HTTP answer (RFC 9457, ``application/problem+json``), a line of the command line or a log line;
the words are these everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from logweir.text import in_words, without_keys


@dataclass(frozen=True, slots=True)
class Problem:
    """One row: ``text`` and ``advice`` are templates for ``str.format`` over the numbers given when it happens."""

    code: str
    status: int
    text: str
    advice: str
    retry: bool = False


class LogweirError(Exception):
    """A problem that happened, with its numbers.

    A number ``advice`` stands in place of the row's: where what to do depends on why it happened. ``str(error)`` is the text and then the advice. ``error.numbers`` holds what the templates were filled with; a key
    that stands in one of them is shown nowhere.
    """

    def __init__(self, problem: Problem, **numbers: Any) -> None:
        self.problem = problem
        self.numbers = numbers
        super().__init__(f"{self.detail} {self.advice}")

    @property
    def reason(self) -> str:
        """As what it counts in metrics: the code, or a cause of which an answer must not speak."""
        return self.problem.code

    @property
    def detail(self) -> str:
        text = self._filled(self.problem.text)
        # A reason may end with a question of its own.
        return without_keys(text[:-1] if text.endswith("?.") else text)

    @property
    def advice(self) -> str:
        return without_keys(self.numbers.get("advice") or self._filled(self.problem.advice))

    def _filled(self, template: str) -> str:
        return template.format(**{name: in_words(value) for name, value in self.numbers.items()})

    def as_dict(self) -> dict[str, Any]:
        """The members of the problem answer: type, title, status, detail, advice, code, and the numbers by name."""
        problem = self.problem
        return {
            "type": f"urn:logweir:problem:{problem.code}",
            "title": problem.code.replace("_", " ").capitalize(),
            "status": problem.status,
            "detail": self.detail,
            "advice": self.advice,
            "code": problem.code,
            **{
                name: without_keys(value) if isinstance(value, str) else value
                for name, number in self.numbers.items()
                if isinstance(value := in_words(number) if isinstance(number, Exception) else number, int | str | float)
            },
        }


# --- the door: what a sender can do wrong -------------------------------------------------------------------------
KEY_MISSING = Problem(
    "key_missing",
    401,
    "The request carries no key.",
    "Send the header X-My-Log-Input-Key, X-Log-Key or Authorization: Bearer; `logweir keys add NAME` makes a key.",
)
KEY_UNKNOWN = Problem(
    "key_unknown",
    401,
    "The key of the request is not known here.",
    "Check the key's spelling; `logweir keys list` names the live keys, `logweir keys add NAME` makes one.",
)
# Which of a key's terms is not met is in the door's log and metrics: who found a key is not told how to use it.
KEY_REFUSED = Problem(
    "key_refused",
    403,
    "The key of the request is known here, and refused.",
    "Ask the operator: the door's log says why, `logweir keys show NAME` on which terms the key is good.",
)
CATEGORY_REFUSED = Problem(
    "category_refused",
    403,
    "Event {event_index} has the category {category!r}, which this key may not send.",
    "Send it with a key that may. Operator: `logweir keys set NAME --category …`. Nothing of this request was accepted.",
)
CATEGORY_MISSING = Problem(
    "category_missing",
    403,
    "Event {event_index} has no category, and this key may only send some categories.",
    "Send the field category, as text. Operator: `logweir keys set NAME --stamp category=…` gives one to events that have"
    " none. Nothing of this request was accepted.",
)
QUOTA_EXCEEDED = Problem(
    "quota_exceeded",
    429,
    "The key's quota of {limit} {resource} a second is used up.",
    "Send the same request again after Retry-After seconds. Operator: `logweir keys set NAME` raises quotas.",
    retry=True,
)
FAILED_ATTEMPTS_EXCEEDED = Problem(
    "failed_attempts_exceeded",
    429,
    "More than {attempts_max} requests a minute came from this address without a good key.",
    "Send a good key: it is let in at once. Operator: `logweir keys list`, ingest.failed_attempts_per_minute_max.",
    retry=True,
)
EMITTER_HEADER_BAD = Problem(
    "emitter_header_bad",
    400,
    "The header {header} reads {value!r}, which is not {expected}.",
    "Correct the header, or leave all Log-* headers out to send without numbers.",
)
JSON_BAD = Problem(
    "json_bad",
    400,
    "Event {event_index} is not valid JSON at byte {byte_offset} of the body: {reason}.",
    "Correct the sender's JSON (quotes inside a template must be escaped). Nothing of this request was accepted.",
)
EVENT_NOT_OBJECT = Problem(
    "event_not_object",
    400,
    "Event {event_index}, at byte {byte_offset} of the body, is {found}; an event is a JSON object.",
    "Send objects: one, an array of them, or one a line. Nothing of this request was accepted.",
)
BODY_EMPTY = Problem(
    "body_empty",
    400,
    "The body holds no event.",
    "Send at least one JSON object.",
)
ENCODING_BAD = Problem(
    "encoding_bad",
    400,
    "The body cannot be read as {encoding}: {reason}.",
    "Check that the body is complete and that Content-Encoding names how it is compressed.",
)
UTF8_BAD = Problem(
    "utf8_bad",
    400,
    "Byte {byte_offset} of the body, in event {event_index}, is not UTF-8{looks_like}.",
    "Send JSON as UTF-8. Nothing of this request was accepted.",
)
DEPTH_EXCEEDED = Problem(
    "depth_exceeded",
    400,
    "Event {event_index} is nested deeper than {depth_max} levels at byte {byte_offset} of the body.",
    "Send flatter events, or raise ingest.depth_max.",
)
EVENTS_TOO_MANY = Problem(
    "events_too_many",
    413,
    "The body holds more than {events_max} events.",
    "Send smaller batches, or raise ingest.events_per_request_max.",
)
EVENT_TOO_LARGE = Problem(
    "event_too_large",
    413,
    "Event {event_index}, at byte {byte_offset} of the body, is larger than {size_bytes_max} bytes.",
    "Send smaller events, or raise ingest.event_size_bytes_max.",
)
BULK_ACTION_BAD = Problem(
    "bulk_action_bad",
    400,
    "Where an action should begin, behind {event_index} actions at byte {byte_offset} of the body, there is none.",
    'Send a line such as {{"create":{{}}}} before each document, each on one line. Nothing of this request was accepted.',
)
BULK_ACTION_UNKNOWN = Problem(
    "bulk_action_unknown",
    400,
    "Events are not changed: {action} has no effect here.",
    "Send create or index.",
)
DOCUMENT_MISSING = Problem(
    "document_missing",
    400,
    "Action {event_index} has no document.",
    "Send one on the line behind the action.",
)
BODY_TOO_LARGE = Problem(
    "body_too_large",
    413,
    "The request body is larger than {size_bytes_max} bytes.",
    "Send smaller batches, or raise ingest.body_size_bytes_max.",
)
DECOMPRESSED_TOO_LARGE = Problem(
    "decompressed_too_large",
    413,
    "The body decompresses to more than {size_bytes_max} bytes.",
    "Send smaller batches, or raise ingest.decompressed_size_bytes_max or ingest.decompression_ratio_max.",
)
EVENT_MISSING = Problem(
    "event_missing",
    400,
    "Envelope {event_index} has no event.",
    'Send {{"event": …}}: a text or an object that is not empty. Nothing of this request was accepted.',
)
EVENT_BLANK = Problem(
    "event_blank",
    400,
    "The event of envelope {event_index} is blank.",
    "Send a text or an object that is not empty. Nothing of this request was accepted.",
)
CHANNEL_MISSING = Problem(
    "channel_missing",
    400,
    "The request names no channel.",
    "Send the header X-Splunk-Request-Channel, or ?channel=, as with the events.",
)
CHANNEL_BAD = Problem(
    "channel_bad",
    400,
    "The channel is not 1 to {length_max} visible ASCII characters.",
    "Send a UUID in the header X-Splunk-Request-Channel, or none. Nothing of this request was accepted.",
)
ACKS_BAD = Problem(
    "acks_bad",
    400,
    "The body is not an object with the numbers that are asked after: {reason}.",
    'Send {{"acks": [ackId, …]}} with what the door answered to the events.',
)
KEY_IN_QUERY = Problem(
    "key_in_query",
    400,
    "The key stands in the URL, where logs and proxies keep it.",
    "Send it in the header Authorization: Splunk KEY, and make a new one in its place: `logweir keys rotate NAME`.",
)
PROTOBUF_BAD = Problem(
    "protobuf_bad",
    400,
    "The body is not an ExportLogsServiceRequest at byte {byte_offset}, in record {event_index}: {reason}.",
    "Check that the body is complete, and that Content-Type says how it is encoded. Nothing of this request was accepted.",
)
MEDIA_TYPE_UNKNOWN = Problem(
    "media_type_unknown",
    415,
    "The Content-Type {media_type!r} is not understood here.",
    "Send one of: {understood}.",
)
HEADERS_TOO_LARGE = Problem(
    "headers_too_large",
    431,
    "The request's headers are larger than {size_bytes_max} bytes.",
    "Send shorter headers, or raise {section}.header_size_bytes_max.",
)
HEADERS_TOO_MANY = Problem(
    "headers_too_many",
    431,
    "The request has more than {headers_max} headers.",
    "Send fewer headers, or raise {section}.headers_max.",
)
HEADERS_TOO_SLOW = Problem(
    "headers_too_slow",
    408,
    "The request's headers took longer than {timeout_s} seconds.",
    "Check the network between the sender and the door, or raise {section}.header_timeout_s.",
    retry=True,
)
CONTENT_ENCODING_UNKNOWN = Problem(
    "content_encoding_unknown",
    415,
    "Content-Encoding {encoding!r} is not understood.",
    "Send the body plain, or compressed once with one of: {understood}.",
)
NOT_FOUND = Problem(
    "not_found",
    404,
    "There is nothing at {path}.",
    "Events go to POST /events.",
)
BODY_TOO_SLOW = Problem(
    "body_too_slow",
    408,
    "The request's body took longer than {timeout_s} seconds.",
    "Check the network between the sender and the door, send smaller batches, or raise {section}.body_timeout_s.",
    retry=True,
)
PIPELINED_TOO_MANY = Problem(
    "pipelined_too_many",
    429,
    "More than {requests_max} requests of this connection wait for the answer to an earlier one; this one was not read.",
    "Wait for answers before sending on, or raise {section}.pipelined_requests_max.",
    retry=True,
)
# Nobody is there to read it: it is counted, and the connection ended.
ANSWER_UNREAD = Problem(
    "answer_unread",
    408,
    "The client left an answer unread for {timeout_s} seconds.",
    "Read the answers, or raise {section}.read_timeout_s.",
    retry=True,
)
HTTP_BAD = Problem(
    "http_bad",
    400,
    "The request is not HTTP that can be read: {reason}.",
    "Check the sender, and any proxy in between.",
)
HTTP_VERSION_UNKNOWN = Problem(
    "http_version_unknown",
    505,
    "The request line names a version of HTTP that is not spoken here.",
    "Send HTTP/1.1. A proxy in front may speak HTTP/2 or HTTP/3 to its clients.",
)
TRANSFER_ENCODING_UNKNOWN = Problem(
    "transfer_encoding_unknown",
    501,
    "The Transfer-Encoding {encoding!r} is not understood here: chunked alone is.",
    "Say what the body is compressed with in Content-Encoding, and Transfer-Encoding: chunked at most.",
)
RECEIPT_BAD = Problem(
    "receipt_bad",
    404,
    "This receipt was not made here.",
    "Send a receipt as the door answered it, to a door of the same installation.",
)
RECEIPT_UNANSWERED = Problem(
    "receipt_unanswered",
    503,
    "What became of this batch cannot be said now: {reason}.",
    "Ask again a little later; the receipt stays good, and the events are as safe as they were.",
    retry=True,
)
METHOD_NOT_ALLOWED = Problem(
    "method_not_allowed",
    405,
    "{path} does not answer {method}.",
    "Use {allowed}.",
)

# --- the door: what is ours ---------------------------------------------------------------------------------------
KEYS_UNREADABLE = Problem(
    "keys_unreadable",
    503,
    "This door could not read its keys since it started.",
    "Send the same request again after Retry-After seconds. Operator: the door's log says what is wrong with the keys file.",
    retry=True,
)
BODIES_TOO_LARGE = Problem(
    "bodies_too_large",
    503,
    "The request bodies under way hold {held_bytes} bytes; with this one they would be more than {size_bytes_max}.",
    "Send the same request again after Retry-After seconds. Operator: run more processes, or raise"
    " ingest.bodies_size_bytes_max.",
    retry=True,
)
REQUESTS_TOO_MANY = Problem(
    "requests_too_many",
    503,
    "{requests_max} requests are under way, and no more are let in.",
    "Send the same request again after Retry-After seconds. Operator: run more processes, or raise {section}.requests_max.",
    retry=True,
)
CONNECTIONS_TOO_MANY = Problem(
    "connections_too_many",
    503,
    "{connections_max} connections are open, and no more are let in.",
    "Use fewer connections with more events in each request, and try again after Retry-After seconds. Operator: run"
    " more processes, or raise {section}.connections_max and the limit of open files.",
    retry=True,
)
CONNECTIONS_WITHOUT_KEY_TOO_MANY = Problem(
    "connections_without_key_too_many",
    503,
    "Too many connections have shown no good key, of one address or altogether: the oldest is ended for the newest.",
    "Send a request with a good key as soon as a connection is made; close connections that are not used.",
    retry=True,
)
QUEUE_UNAVAILABLE = Problem(
    "queue_unavailable",
    503,
    "The queue did not take the events: {reason}. They are not accepted; they may still arrive.",
    "Send the same request again after Retry-After seconds; numbered, or with the same Idempotency-Key within one UTC day,"
    " each event is stored once. Operator: `logweir doctor` says what the queue lacks.",
    retry=True,
)
SPOOL_FULL = Problem(
    "spool_full",
    503,
    "The queue does not confirm records, and the spool holds {held_bytes} of at most {size_bytes_max} bytes: the events"
    " are not accepted.",
    "Send the same request again after Retry-After seconds. Operator: bring the queue back, or raise"
    " ingest.spool_size_bytes_max.",
    retry=True,
)
SPOOL_FAILED = Problem(
    "spool_failed",
    503,
    "The queue does not confirm records, and the spool cannot be written: {reason}. The events are not accepted.",
    "Send the same request again after Retry-After seconds. Operator: see to the disk of the data folder, and to the queue.",
    retry=True,
)
# Answered by the front of deploy/nginx, word for word, while no ingest process runs behind it.
INGEST_AWAY = Problem(
    "ingest_away",
    503,
    "No ingest process takes the request.",
    "Send the same request again after Retry-After seconds. Operator: see whether ingest runs, and its log.",
    retry=True,
)
# What a format's senders ask before they send; /readyz says the same in its own words.
NOT_READY = Problem(
    "not_ready",
    503,
    "This door takes no events now: {reason}.",
    "Ask again after Retry-After seconds. Operator: `logweir doctor` says what is missing.",
    retry=True,
)
STOPPING = Problem(
    "stopping",
    503,
    "This process is stopping and takes no more requests.",
    "Send the same request again.",
    retry=True,
)
INTERNAL = Problem(
    "internal",
    500,
    "The door failed on this request; it is not accepted.",
    "Try again; the operator finds the cause in the door's log under {reference}.",
    retry=True,
)
AT_THE_DOOR = tuple(one for one in tuple(globals().values()) if isinstance(one, Problem))
"""The problems so far."""

# --- settings, keys, command line ---------------------------------------------------------------------------------
SETTING_UNKNOWN = Problem(
    "setting_unknown",
    500,
    "{where} names {name!r}, which is not a setting.{nearest}",
    "`logweir config` prints every setting with its meaning.",
)
SETTING_BAD = Problem(
    "setting_bad",
    500,
    "{where} sets {name} to {value!r}: {reason}.",
    "`logweir config` prints every setting with its meaning.",
)
CONFIG_UNREADABLE = Problem(
    "config_unreadable",
    500,
    "The configuration {path} cannot be read: {reason}.",
    "Correct the file, or name another with --config.",
)
CONSOLE_HOSTS_MISSING = Problem(
    "console_hosts_missing",
    500,
    "The console is to listen on {address}, beyond this machine, and console.hosts does not say by which names it is called.",
    "It asks nobody for a password: whoever reaches it reads every event. Leave console.address at 127.0.0.1; or put"
    " something in front that asks who they are, and set console.hosts to the names and addresses that browsers use.",
)
SERVER_EXTRA_MISSING = Problem(
    "server_extra_missing",
    500,
    "`logweir {command}` needs the package {module!r}, which is not installed.",
    "Install the server parts: pip install 'logweir[server]'.",
)
KEY_NAME_TAKEN = Problem(
    "key_name_taken",
    409,
    "There is a live key named {name!r} already.",
    "Choose another name, or give it a second key: logweir keys rotate {name}.",
)
KEY_NAME_BAD = Problem(
    "key_name_bad",
    400,
    "{name!r} cannot be a key's name.",
    "Use 1 to 64 letters, digits, '.', '_' or '-'.",
)
KEY_NAME_UNKNOWN = Problem(
    "key_name_unknown",
    404,
    "There is no key named {name!r} that is not revoked.{nearest}",
    "`logweir keys list` names all keys.",
)
KEY_ID_UNKNOWN = Problem(
    "key_id_unknown",
    404,
    "No key named {name!r} that is not revoked has the id {id!r}.",
    "Choose one of: {ids}.",
)
KEY_ID_WANTED = Problem(
    "key_id_wanted",
    409,
    "{name!r} has several keys, and each ends in its own time: {ids}.",
    "Say which one is meant: --id.",
)
KEY_TERM_BAD = Problem(
    "key_term_bad",
    400,
    "{term} cannot be {value!r}: {reason}.",
    "`logweir keys add --help` says what may be given, docs/how-to/keys.md what it means.",
)
KEYS_FILE_BAD = Problem(
    "keys_file_bad",
    500,
    "The keys file {path} cannot be read: {reason}.",
    "Correct it or restore it from a backup; keys are kept hashed and cannot be recovered from elsewhere.",
)
DATA_DIR_LOCKED = Problem(
    "data_dir_locked",
    500,
    "{path} is in use by another logweir (process {pid}).",
    "Stop it, or choose another --data-dir.",
)
DATA_DIR_UNUSABLE = Problem(
    "data_dir_unusable",
    500,
    "The data folder {path} cannot be used: {reason}.",
    "Check its permissions, or choose another --data-dir.",
)
PART_FAILED = Problem(
    "part_failed",
    500,
    "{part} did not start (status: {status}).",
    "Its own message stands above.",
)
PORT_TAKEN = Problem(
    "port_taken",
    500,
    "{what} cannot listen on {address}: {reason}.",
    "Stop what listens there, or choose another port or address.",
)
TLS_FILE_BAD = Problem(
    "tls_file_bad",
    500,
    "{path} cannot be used for TLS: {reason}.",
    "ingest.tls_cert_file is a PEM file with the certificate and then its chain, ingest.tls_key_file one with its key;"
    " the user that runs ingest must be able to read both.",
)
TLS_KEY_ENCRYPTED = Problem(
    "tls_key_encrypted",
    500,
    "The private key in {path} is encrypted.",
    "Store it without a passphrase (openssl pkey -in OLD -out NEW), readable only for the user that runs ingest.",
)
TLS_KEY_MISMATCHED = Problem(
    "tls_key_mismatched",
    500,
    "The private key in {key_path} is not the one of the certificate in {path}.",
    "Name the two files of one pair; in the certificate's file, the server's own certificate comes before its chain.",
)
TLS_CERTIFICATE_NOT_VALID = Problem(
    "tls_certificate_not_valid",
    500,
    "The certificate in {path} is good from {since} to {until}, and now it is {now}.",
    "Renew the certificate, or correct this machine's clock.",
)
KEY_NOT_GIVEN = Problem(
    "key_not_given",
    401,
    "No key was given to send with.",
    "Give --key, or set {variable}; `logweir keys add NAME` makes one.",
)
KEY_UNSENDABLE = Problem(
    "key_unsendable",
    400,
    "The key to send with holds a character that no key has, at place {place} of {length}.",
    "Copy it again, as `logweir keys add NAME` has printed it.",
)
DOOR_ABSENT = Problem(
    "door_absent",
    404,
    "There is no door at {url}: it answers {status}.",
    "Give --url of an ingest, such as http://127.0.0.1:8080/events; the console, for one, takes no events.",
)
DOOR_REFUSED = Problem(
    "door_refused",
    400,
    "Line {line}: {detail}.",
    "What stands before that line was accepted. Correct it, or leave out what is bad with --skip-bad, and send the rest:"
    " {rest}.",
)
DOOR_REFUSED_KEY = Problem(
    "door_refused_key",
    401,
    "{url} answers {status}: {detail}",
    "Check --key; `logweir keys list` on the door's machine names the live ones.",
)
DOOR_DOWN = Problem(
    "door_down",
    503,
    "{url} did not accept the events from line {line} on within {seconds} seconds: {reason}.",
    "Check that ingest runs there, then send the rest: {rest}.",
    retry=True,
)
DOOR_UNTRUSTED = Problem(
    "door_untrusted",
    500,
    "The certificate of {url} is not to be trusted: {reason}.",
    "Give the certificate of its authority with --ca-file (`logweir up --tls` keeps its own in tls/ca.crt of its data"
    " folder), and call the door by a name that its certificate has.",
)
FILE_UNREADABLE = Problem(
    "file_unreadable",
    500,
    "{path} cannot be read: {reason}.",
    "Check the path and its permissions.",
)
FILE_CUT = Problem(
    "file_cut",
    400,
    "{path} is cut off: its compressed data ends too early, behind line {line}.",
    "The lines up to there were sent. Fetch the whole file, and send the rest with --from-line.",
)
FILE_DAMAGED = Problem(
    "file_damaged",
    400,
    "{path} is damaged: its compressed data cannot be unpacked behind line {line}.",
    "The lines up to there were sent. Fetch the file again, and send the rest with --from-line.",
)
FILE_FAILED = Problem(
    "file_failed",
    500,
    "{path} cannot be used: {reason}.",
    "Check the path, its permissions, and the disk.",
)

# --- queue and store ----------------------------------------------------------------------------------------------
QUEUE_DOWN = Problem(
    "queue_down",
    503,
    "The queue {url} does not answer: {reason}.",
    "Check that it runs and that queue.url, credentials and CA file are right; of the embedded one, its folder, the"
    " permissions and the disk. A topic or file that is not there yet, `logweir ingest` makes when it starts.",
    retry=True,
)
QUEUE_REBALANCING = Problem(
    "queue_rebalancing",
    503,
    "The partitions of {topic} are being shared out anew among the workers of the group {group}.",
    "Nothing is to be done: it is over within seconds.",
    retry=True,
)
QUEUE_RECORD_TOO_LARGE = Problem(
    "queue_record_too_large",
    500,
    "A record of {size_bytes} bytes does not fit into the queue, which takes {size_bytes_max}.",
    "Raise the topic's max.message.bytes, or lower queue.record_size_bytes_max.",
)
QUEUE_RECORD_LIMIT_LOW = Problem(
    "queue_record_limit_low",
    500,
    "The topic {topic} takes records of at most {size_bytes_topic} bytes, less than queue.record_size_bytes_max ({size_bytes_max}) and their envelope.",
    "Raise the topic's max.message.bytes to {size_bytes_wanted}, or lower queue.record_size_bytes_max.",
)
OFFSETS_EXPIRED = Problem(
    "offsets_expired",
    500,
    "Partition {partition} of {topic}: offset {offset} is gone; the queue holds {offset_earliest} to {offset_latest}.",
    "Retention passed the worker or the topic was made anew; what is missing is reported as lost.",
)
QUEUE_UNSALVAGEABLE = Problem(
    "queue_unsalvageable",
    500,
    "Nothing of the queue {url} can be saved: {reason}.",
    "docs/how-to/damaged-files.md says how to go on without it.",
)
RECORD_VERSION_UNKNOWN = Problem(
    "record_version_unknown",
    500,
    "The record has version {version}; this program reads versions up to {version_max}.",
    "Upgrade this program before the doors that write to the queue.",
)
RECORD_CORRUPT = Problem(
    "record_corrupt",
    500,
    "The record cannot be read: {reason}.",
    "It is kept among the dead letters; check what else writes to the topic, and the disks.",
)
STORE_DOWN = Problem(
    "store_down",
    503,
    "The store {url} does not answer: {reason}.",
    "Check that it runs and that store.url, credentials and CA file are right; of the embedded one, its folder, the"
    " permissions and the disk.",
    retry=True,
)
STORE_ABSENT = Problem(
    "store_absent",
    503,
    "There is no store at {url}.",
    "Check --data-dir, store.url and store.index_prefix. A store that is not there yet, `logweir up` or a worker makes when"
    " it starts.",
    retry=True,
)
STORE_REFUSES = Problem(
    "store_refuses",
    500,
    "The store {url} refuses {what}: {reason}.",
    "Check the rights of the user or API key that logweir uses, and the store's log.",
)
DEAD_LETTERS_FULL = Problem(
    "dead_letters_full",
    503,
    "The store holds {letters} dead letters of {size_bytes} bytes; it may hold {letters_max} of {size_bytes_max} bytes:"
    " events that would be more of them wait until there is room, and in time all behind them.",
    "See what they are: logweir deadletters list --count; then retry, export or drop some, or raise"
    " store.dead_letters_max or store.dead_letters_size_bytes_max.",
    retry=True,
)
LETTERS_OF_KEY_FULL = Problem(
    "letters_of_key_full",
    503,
    "Events of this key wait: too many before them could not be indexed, and there is no room to keep more of these.",
    "Send the same request again later. Operator: see what they are, logweir deadletters list --count; then retry, export"
    " or drop some of that key, or raise store.dead_letters_max or store.dead_letters_size_bytes_max.",
    retry=True,
)
LETTER_UNKNOWN = Problem(
    "letter_unknown",
    404,
    "There is no dead letter or refused body {id!r}.",
    "`logweir deadletters list` prints their ids; one that was retried or dropped is gone.",
)
FILTERS_BAD = Problem(
    "filters_bad",
    500,
    "The filters {path}, {place}: {reason}.",
    "Correct the file; `logweir filters check FILE` reads it, and docs/how-to/filters.md has the rules.",
)
SETTING_NEEDS_EXTRA = Problem(
    "setting_needs_extra",
    500,
    "{name} is set, but the package {module} is not installed.",
    "Install it with `pip install 'logweir[{extra}]'`.",
)
PLUGIN_BAD = Problem(
    "plugin_bad",
    500,
    "{path} cannot be used: {reason}.",
    "Correct it, or take it out of worker.enrich_dir; `logweir parse --test` runs the examples of what can be loaded.",
)
EVENT_UNUSABLE = Problem(
    "event_unusable",
    400,
    "The event cannot be used: {reason}.",
    "Give one JSON object, in quotes for the shell.",
)
LEDGER_VERSION_UNKNOWN = Problem(
    "ledger_version_unknown",
    500,
    "The ledger document {id} has version {version}; this program reads versions up to {version_max}.",
    "A newer version of logweir has written it: install that one here, too.",
)
CLAIM_LOST = Problem(
    "claim_lost",
    500,
    "Partition {partition} is claimed by {owner} with generation {generation}, later than this worker's {generation_own}.",
    "Another worker has taken the partition over; this one stops working on it.",
)
LEDGER_SET_BACK = Problem(
    "ledger_set_back",
    500,
    "The ledger of partition {partition} is not as it was written last: it was lost, or an older copy put in its place.",
    "The worker goes on from what is there, and indexes again what was read since; stop workers before you restore.",
)

# --- search -------------------------------------------------------------------------------------------------------
QUERY_BAD = Problem(
    "query_bad",
    400,
    "The query cannot be read at character {column}: {reason}.",
    'Example: category:syslog AND (sshd OR "failed password") AND NOT hostname:web*',
)
QUERY_FIELD_UNKNOWN = Problem(
    "query_field_unknown",
    400,
    "{field!r} is not a field.{nearest}",
    "Fields that events bring along are below details, such as details.username; text that has a colon needs quotes.",
)
QUERY_OPERATOR_UNFIT = Problem(
    "query_operator_unfit",
    400,
    "The field {field} cannot do {operator}.",
    "{field} can do: {operators}.",
)
QUERY_TOO_WIDE = Problem(
    "query_too_wide",
    400,
    "The store cannot look for that much at once: {reason}.",
    "Write more letters before the *, or ask for the words each by itself (foo AND bar* instead of foo-bar*); have a"
    " regular expression repeat less.",
)
SEARCH_TOO_SLOW = Problem(
    "search_too_slow",
    503,
    "The search took longer than {timeout_s} seconds and was stopped.",
    "Narrow its time range, or ask for fewer words, values and wildcards. Operator: raise store.search_timeout_s.",
)
SEARCH_ABANDONED = Problem(
    "search_abandoned",
    499,
    "The search was stopped, as nobody waits for it any more.",
    "Ask again.",
)
TIME_BAD = Problem(
    "time_bad",
    400,
    "{value!r} is not a time.{hint}",
    "Write 2026-01-31T12:00:00Z, epoch seconds, or an age such as 15m, 1h or 7d.",
)
DOCUMENT_CHANGED = Problem(
    "document_changed",
    409,
    "{id} was changed by somebody else since it was read.",
    "Look at it again, and repeat the change if it is still wanted.",
    retry=True,
)
DOCUMENT_TOO_LARGE = Problem(
    "document_too_large",
    413,
    "{id} would have {size_bytes} bytes; a document has at most {size_bytes_max}.",
    "Make it smaller: shorter notes, or fewer of them.",
)
RULE_BAD = Problem(
    "rule_bad",
    422,
    "The rule {rule} cannot be used: {reason}.",
    "docs/how-to/write-a-rule.md says how a rule is written; `logweir rules lint` looks at all of them.",
)
RULES_UNREADABLE = Problem(
    "rules_unreadable",
    422,
    "The rules in {path} cannot be read: {reason}.",
    "Correct the file. `logweir rules list` says which of its rules are evaluated until then.",
)
RULE_UNKNOWN = Problem("rule_unknown", 404, "There is no rule {name!r}.{nearest}", "`logweir rules list` has them all.")
ALERT_UNKNOWN = Problem(
    "alert_unknown",
    404,
    "There is no alert whose id begins with {id!r}.",
    "`logweir alerts list` has them all.",
)
ALERT_AMBIGUOUS = Problem(
    "alert_ambiguous",
    409,
    "There are {count} alerts whose ids begin with {id!r}.",
    "Give more of the id's characters; `logweir alerts list` has them all.",
)
CHANGE_REFUSED = Problem(
    "change_refused",
    403,
    "The change is refused: {reason}.",
    "Change alerts on the console's own machine, by `logweir alerts`, or with the token in console.api_token.",
)
CHANNELS_BAD = Problem(
    "channels_bad",
    422,
    "The channels {path}, {place}: {reason}.",
    "Correct the file; docs/how-to/notifications.md says what each channel may say.",
)
CHANNEL_UNKNOWN = Problem(
    "channel_unknown",
    404,
    "There is no channel {name!r}.{nearest}",
    "`logweir channels list` has them all.",
)
CHANNEL_FAILED = Problem(
    "channel_failed",
    502,
    "The channel {name} did not take the test: {reason}.",
    "docs/how-to/notifications.md says what each kind of channel needs.",
    retry=True,
)
MUTE_UNKNOWN = Problem(
    "mute_unknown",
    404,
    "There is no mute {id!r}.",
    "`logweir mutes list` has them all.",
)
MUTES_FULL = Problem(
    "mutes_full",
    409,
    "There are {count} mutes already; there may be at most {count_max}.",
    "End those that are not needed: each alert is held against all of them.",
)
CERTIFICATE_BAD = Problem(
    "certificate_bad",
    400,
    "It is no certificate that this installation has made, or it was changed since.",
    "Have it verified where the data folder has the same receipt.secret as where it was made.",
)
LIST_UNKNOWN = Problem(
    "list_unknown",
    400,
    "There is no list {name!r} in {folder}.",
    "`logweir lists list` has those that there are; docs/how-to/lists.md says how to make one.",
)
LIST_UNFIT = Problem(
    "list_unfit",
    400,
    "The list {name!r} {reason}: a search cannot ask for it.",
    "Rules can, and so can `logweir rules backtest`; a search takes a list of 500 values without networks.",
)
LIST_BAD = Problem(
    "list_bad",
    500,
    "The list {path}{line} cannot be read: {reason}.",
    "Correct the file; until then the list is as it was read last. docs/how-to/lists.md says what it may say.",
)
EXCEPTION_UNKNOWN = Problem(
    "exception_unknown",
    404,
    "There is no exception {id!r}.",
    "`logweir exceptions list` has them all.",
)
EXCEPTIONS_FULL = Problem(
    "exceptions_full",
    409,
    "There are {count} exceptions already; there may be at most {count_max}.",
    "End those that are not needed, or put their values into the rule's condition.",
)
EXCEPTION_TOO_WIDE = Problem(
    "exception_too_wide",
    409,
    "With this exception the rule {rule} would not fire for its own example {example!r}: {reason}.",
    "Name more fields, or --force it.",
)
ALERT_UNFIT = Problem("alert_unfit", 409, "The alert {id} is {status}: it cannot be {change}.", "{what}")
PARTITION_UNKNOWN = Problem(
    "partition_unknown",
    400,
    "{topic} has no partition {partition}; it has {partitions}, from 0 on.",
    "Name one of these.",
)
REPLAY_TAKEN_OVER = Problem(
    "replay_taken_over",
    409,
    "The same replay was begun again by {owner}; this one has stopped.",
    "Let the other one finish. Nothing was done twice.",
)
PROCESS_UNKNOWN = Problem(
    "process_unknown",
    404,
    "There are {count} ingest processes with an open window whose epoch begins with {process!r}.",
    "Those with open windows are: {known}.",
)
PROCESS_ALIVE = Problem(
    "process_alive",
    409,
    "Ingest process {process} was heard of in the last {minutes} minutes that the workers have read.",
    "It closes its windows itself, with its markers. Try again when it is gone, and the workers have caught up.",
)
PARAMETER_BAD = Problem(
    "parameter_bad",
    400,
    "The parameter {name}, which reads {value!r}, is not {expected}.",
    "Correct the request.",
)
EMITTER_UNKNOWN = Problem(
    "emitter_unknown",
    404,
    "No {what} called {name!r} is known.{nearest}",
    "See them all: {command}",
)
