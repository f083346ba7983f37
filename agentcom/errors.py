"""The one exception family: what callers are told."""


class Refused(Exception):
    """A command that was not carried out and changed nothing. `code` is what the client reads."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class Unavailable(Refused):
    """The hub cannot commit or read just now; trying again later helps."""

    def __init__(self, detail: str = "the hub cannot commit at the moment") -> None:
        super().__init__("unavailable", detail)
