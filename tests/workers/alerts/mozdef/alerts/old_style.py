import os

from configlib import OptionParser, getConfig
from lib.alerttask import AlertTask
from query_models import ExistsMatch, SearchQuery, TermMatch


class AlertOldStyle(AlertTask):
    def main(self):
        (options, args) = OptionParser().parse_args([])
        file = os.path.join(os.path.dirname(__file__), "bruteforce_ssh.conf")
        minutes = int(getConfig("minutes", "0", "./bruteforce_ssh.conf")) + int(getConfig("other", "8", file))
        search_query = SearchQuery(minutes=minutes)
        search_query.add_must([TermMatch("_type", "event"), TermMatch("eventsource", "old"), ExistsMatch("host")])
        self.filtersManual(search_query)
        self.searchEventsAggregated("hostname", samplesLimit=1)
        self.walkAggregations(1)

    def onAggregation(self, aggreg):
        source = aggreg["events"][0]["_source"]
        summary = source["host"] + " " + source["eventsource"] + " " + str(len(source["mozdefhostname"]) > 0)
        return self.createAlertDict(summary, "old", ["old"], aggreg["events"])
