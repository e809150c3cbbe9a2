"""The one exception whose message is meant for the user."""


class UserError(ValueError):
    """Bad input; the message is one sentence that says what is wrong and what to do."""
