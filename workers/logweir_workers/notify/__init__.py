"""People are told of alerts: channels, what each has been told, and the senders that tell it."""
