from lib.alerttask import AlertTask
from mozdef_util.query_models import PhraseMatch, SearchQuery, TermMatch


class AlertBruteforceSsh(AlertTask):
    def main(self, threshold):
        self.parse_config("bruteforce_ssh.conf", ["skiphosts", "minutes", "channel"])
        search_query = SearchQuery(minutes=int(self.config.minutes))
        search_query.add_must(
            [
                PhraseMatch("summary", "failed"),
                TermMatch("details.program", "sshd"),
                PhraseMatch("summary", "login") | PhraseMatch("summary", "invalid user"),
            ]
        )
        for host in self.config.skiphosts.split():
            search_query.add_must_not(PhraseMatch("summary", host))
        self.filtersManual(search_query)
        self.searchEventsAggregated("details.sourceipaddress", samplesLimit=2)
        self.walkAggregations(threshold=threshold, config={"hosts": 2})

    def onAggregation(self, aggreg):
        hosts = self.mostCommon(aggreg["allevents"], "_source.hostname")
        named = " ".join(f"{name} ({count} hits)" for name, count in hosts[: aggreg["config"]["hosts"]])
        summary = "{0} ssh bruteforce attempts by {1} {2}".format(aggreg["count"], aggreg["value"], named)
        return self.createAlertDict(
            summary, "bruteforce", ["ssh"], aggreg["events"], "ERROR", "https://runbooks/ssh", self.config.channel
        )
