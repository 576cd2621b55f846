from lib.deadman_alerttask import DeadmanAlertTask
from mozdef_util.query_models import SearchQuery, TermMatch


class DeadmanBackup(DeadmanAlertTask):
    def main(self, *hosts):
        for host in hosts:
            search_query = SearchQuery(hours=1)
            search_query.add_must([TermMatch("category", "backup"), TermMatch("hostname", host)])
            self.filtersManual(search_query)
            self.searchEventsSimple()
            self.walkEvents(host=host)

    def onNoEvent(self, host):
        return self.createAlertDict("No backup of " + host, "deadman", ["backup"], [], severity="CRITICAL")
