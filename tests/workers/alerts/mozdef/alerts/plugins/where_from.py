class message:
    def __init__(self):
        self.registration = ["sourceipaddress"]
        self.priority = 2

    def onMessage(self, message):
        if "sourceipaddress" not in message.get("details", {}):
            return message
        message["where_from"] = "inside" if message["details"]["sourceipaddress"].startswith("10.") else "outside"
        message["tags"].append("located")
        return message
