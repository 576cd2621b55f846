from lib.alerttask import AlertTask
from lib.words import GREETING
from mozdef_util.query_models import Aggregation, SearchQuery, TermMatch


class AlertManyNames(AlertTask):
    def main(self):
        for name in ("first", "second"):
            self.custom_alert_name = name
            search_query = SearchQuery(minutes=15)
            search_query.add_must(TermMatch("category", "named"))
            search_query.add_aggregation(Aggregation("details.color"))
            self.found = search_query.execute(self.es, indices=self.event_indices)
            self.filtersManual(search_query)
            self.searchEventsSimple()
            self.walkEvents()

    def onEvent(self, event):
        most = self.found["aggregations"]["details.color"]["terms"][0]
        summary = "{0} {1}: {2} of {3}".format(GREETING, self.classname, most["key"], len(self.found["hits"]))
        return self.createAlertDict(summary, "named", [], [event])
