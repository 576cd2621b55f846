"""The handler for Python's logging that numbers its events, so that what is lost is known. Standard library only."""

from logweir.emit.formatter import LogweirFormatter
from logweir.emit.handler import LogweirHandler

__all__ = ["LogweirFormatter", "LogweirHandler"]
