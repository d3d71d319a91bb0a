"""Where a program of sleap-rtc has its room secret: the four places of release 0.0.7, in its order.

(sleap-rtc 0.0.7, `auth/secret_resolver.py` and `auth/credentials.py`.)
"""

import json
import os
from pathlib import Path


class RoomSecretUnreadable(RuntimeError):
    """A file that may hold the room secret can't be read: repair it, or delete it."""


def find_room_secret(room_id: str | None, given: str | None) -> str | None:
    """The secret that clients of a room must prove to hold, if there is one.

    Args:
        room_id: of the room; None looks under "default".
        given: by the program itself, before all others.

    Returns:
        The secret's text: of `SLEAP_ROOM_SECRET`, else of the file named by the room in
        `SLEAP_SECRET_PATH` (`~/.sleap-rtc/room-secrets`), else of the room's entry in
        `room_secrets` of `~/.sleap-rtc/credentials.json`; None if no place has one.

    Raises:
        RoomSecretUnreadable: a file is there, but can't be read. To go on would leave open a room
            that somebody has locked.
    """
    home = Path.home() / ".sleap-rtc"
    folder = Path(os.environ.get("SLEAP_SECRET_PATH") or home / "room-secrets").expanduser()
    room = room_id or "default"
    return (
        given
        or os.environ.get("SLEAP_ROOM_SECRET")
        or _text(folder / room)
        or _entry(home / "credentials.json", room)
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RoomSecretUnreadable(
            f"{path} may hold a room secret, and can't be read ({error}): repair it, or delete it"
        ) from error


def _entry(path: Path, room: str) -> str | None:
    text = _text(path)
    if text is None:
        return None
    try:
        found = json.loads(text).get("room_secrets", {}).get(room)
    except (ValueError, AttributeError, RecursionError) as error:
        raise RoomSecretUnreadable(
            f"{path} may hold a room secret, and is no JSON object of sleap-rtc ({error}): repair "
            "it, or delete it"
        ) from error
    if found is not None and not isinstance(found, str):
        raise RoomSecretUnreadable(f"the secret of room {room} in {path} is no text: repair it")
    return found or None
