from lib.alerttask import AlertTask
from mozdef_util.query_models import PhraseMatch, SearchQuery, TermMatch


class AlertPrivileged(AlertTask):
    def main(self):
        search_query = SearchQuery(minutes=5)
        search_query.add_must([TermMatch("category", "syslog"), PhraseMatch("summary", "session opened for user root")])
        search_query.add_must_not([TermMatch("details.user", "backup")])
        self.filtersManual(search_query)
        self.searchEventsSimple()
        self.walkEvents()

    def onEvent(self, event):
        summary = "Root on " + event["_source"]["hostname"]
        alert = self.createAlertDict(summary, "access", ["root"], [event], severity="CRITICAL")
        alert["details"] = {"sourceipaddress": event["_source"]["details"].get("remote_addr", "nowhere")}
        return alert
