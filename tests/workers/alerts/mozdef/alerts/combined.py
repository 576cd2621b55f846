from alerts.lib.alerttask import AlertTask
from query_models import (
    BooleanMatch,
    ExistsMatch,
    LessThanMatch,
    QueryStringMatch,
    RangeMatch,
    SearchQuery,
    SubnetMatch,
    TermMatch,
    TermsMatch,
    WildcardMatch,
)


class AlertCombined(AlertTask):
    def main(self):
        search_query = SearchQuery(**dict(minutes=10))
        search_query.add_must(TermsMatch("category", ["proxy", "squid"]))
        search_query.add_must(
            [
                WildcardMatch("details.uri", "*.EXE"),
                SubnetMatch("details.src_ip", "10.1.0.0/16"),
                RangeMatch("details.status", 200, 299),
                LessThanMatch("details.bytes", 1000),
                QueryStringMatch("details.method: (GET POST) AND NOT summary: /allow.*/"),
                BooleanMatch(should=[TermMatch("details.blocked", True), ExistsMatch("details.virus")]),
            ]
        )
        search_query.add_must_not([TermMatch("hostname", "lab1")])
        self.filtersManual(search_query)
        self.searchEventsSimple()
        self.walkEvents(word="fetched")

    def onEvent(self, event, word):
        details = event["_source"]["details"]
        summary = "{0} {1} {2}".format(details["src_ip"], word, details.get("uri"))
        tags = ["proxy"] if "user_agent" in details and hasattr(details, "http_user_agent") else []
        return self.createAlertDict(summary, event["_source"].category, tags, [event], severity="WARNING")
