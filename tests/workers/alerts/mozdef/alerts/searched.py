from lib.alerttask import AlertTask
from mozdef_util.query_models import QueryStringMatch, SearchQuery


class AlertSearched(AlertTask):
    def main(self):
        search_query = SearchQuery(minutes=10)
        search_query.add_must(
            QueryStringMatch('(summary:"root login" OR summary:sudo*) AND _exists_:details.tty -tags:quiet')
        )
        self.filtersManual(search_query)
        self.searchEventsSimple()
        self.walkEvents()

    def onEvent(self, event):
        return self.createAlertDict(event["_source"]["summary"], "x", event["_source"]["tags"], [event])
