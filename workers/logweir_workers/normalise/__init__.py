"""An event as sent becomes an event as stored."""
