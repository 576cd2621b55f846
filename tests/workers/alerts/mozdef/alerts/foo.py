# The first alert of MozDef's guide: events of a category with an address, counted by it.
from lib.alerttask import AlertTask
from mozdef_util.query_models import ExistsMatch, SearchQuery, TermMatch


class AlertFoo(AlertTask):
    """Greetings."""

    def main(self):
        search_query = SearchQuery(minutes=20)
        search_query.add_must(
            [
                TermMatch("category", "helloworld"),
                ExistsMatch("details.sourceipaddress"),
            ]
        )
        self.filtersManual(search_query)
        self.searchEventsAggregated("details.sourceipaddress", samplesLimit=10)
        self.walkAggregations(threshold=1)

    def onAggregation(self, aggreg):
        category = "My first alert!"
        tags = ["Foo"]
        severity = "NOTICE"
        if "foo" in aggreg["events"][0]["_source"]["tags"]:
            summary = "Foo alert " + str(aggreg["count"]) + " " + aggreg["value"]
        else:
            summary = "Bar alert"
        return self.createAlertDict(summary, category, tags, aggreg["events"], severity)
