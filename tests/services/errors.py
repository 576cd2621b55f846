"""The two things that can be wrong with a service: a tool is missing here, or a server does not do what it should."""


class ServiceError(RuntimeError):
    """A server did not start, stop or answer. The text holds the end of its log where there is one."""


class MissingTool(ServiceError):
    """Something that this machine lacks. The text names the command that installs it."""
