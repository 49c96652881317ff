"""Where a schema registry is and who asks it: what can be wrong with these settings."""

from urllib.parse import urlsplit

USER, PASSWORD = "HEARTWHEEL_REGISTRY_USERNAME", "HEARTWHEEL_REGISTRY_PASSWORD"
URL, TOKEN = "HEARTWHEEL_REGISTRY_URL", "HEARTWHEEL_REGISTRY_TOKEN"
NEEDED = "write it as https://host:port, with a path if it has one"


def wrong_access(urls: list[str], username: str, password: str, token: str) -> str:
    """Return what is wrong, or nothing."""
    for url in urls:
        if problem := _wrong_url(url):
            return f"{URL} {problem}"
    if bool(username) != bool(password):
        return f"{USER} and {PASSWORD} need each other"
    if username and token:
        return f"{USER} and {TOKEN} exclude each other: take one out"
    if ":" in username:
        return f"{USER} has a colon, which basic authentication cannot send"
    if not is_word(token):
        return f"{TOKEN} must be one word of ASCII letters, digits and signs"
    return ""


def is_word(text: str) -> bool:
    """Say whether a header can have a text in it as one word."""
    return text.isascii() and text.isprintable() and " " not in text


def _wrong_url(text: str) -> str:
    """Return why this is no address of a registry; it is not shown, as it may have a password."""
    try:
        url = urlsplit(text)
        _ = url.port  # raises for one that is none
    except ValueError as error:
        return f"cannot be read ({error}): {NEEDED}"
    if url.username is not None:
        return f"has a user in it: write that in {USER}, and the password in {PASSWORD}"
    if url.scheme not in ("http", "https") or not url.hostname or not is_word(text):
        return f"is no address: {NEEDED}"
    if url.query or url.fragment:
        return f"has more than a path: {NEEDED}"
    return ""
