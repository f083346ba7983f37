"""The exceptions that callers get: all derive from `Refused`."""


class Refused(Exception):
    """A command that was not carried out and changed nothing. `code` is what the client reads."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class Unavailable(Refused):
    """The hub cannot commit or read at the moment; the client should retry later."""

    def __init__(self, detail: str = "the hub cannot commit at the moment") -> None:
        super().__init__("unavailable", detail)
