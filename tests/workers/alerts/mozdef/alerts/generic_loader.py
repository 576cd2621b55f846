import glob
import os

import hjson
import netaddr
from lib.alerttask import AlertTask
from mozdef_util.query_models import QueryStringMatch, SearchQuery


class AlertGenericLoader(AlertTask):
    def main(self):
        for path in sorted(glob.glob(os.path.join(os.path.dirname(__file__), "rules", "*.json"))):
            with open(path) as file:
                self.rule = hjson.load(file)
            search_query = SearchQuery(minutes=self.rule["minutes"])
            search_query.add_must(QueryStringMatch(self.rule["search_string"]))
            self.custom_alert_name = self.rule["name"]
            self.filtersManual(search_query)
            self.searchEventsAggregated(self.rule["key"], samplesLimit=2)
            self.walkAggregations(threshold=int(self.rule["threshold"]))

    def onAggregation(self, aggreg):
        network = netaddr.IPNetwork(aggreg["value"] + "/24").cidr
        summary = self.rule["summary"].format(value=network, **aggreg["events"][0]["_source"])
        return self.createAlertDict(summary, "generic", self.rule["tags"], aggreg["events"], self.rule["severity"])
