from lib.alerttask import AlertTask
from mozdef_util.query_models import SearchQuery, TermMatch
from mozdef_util.utilities.dot_dict import DotDict
from mozdef_util.utilities.logger import logger
from mozdef_util.utilities.toUTC import toUTC


class AlertUploads(AlertTask):
    def main(self):
        self.config = self.parse_json_alert_config("uploads.json")
        with open("uploads.json") as file:
            assert "words" in file.read()
        search_query = SearchQuery(hours=1)
        for word in self.config["words"]:
            search_query.add_should(TermMatch("summary", word))
        self.filtersManual(search_query)
        self.searchEventsSimple()
        self.walkEvents()

    def onEvent(self, event):
        source = DotDict(event["_source"])
        logger.info("seen %s", source.details.username)
        print("no part of the output")
        if not source.details.user:
            return None
        when = toUTC(source.get("details.when")).isoformat()
        who = source.details["remote_user"]
        return self.createAlertDict(f"{who} at {when}", self.classname(), ["x"], [event], "INFO")
