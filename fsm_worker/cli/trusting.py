"""Whom a signaling server believes beside its own tokens, from settings and flags."""

from pathlib import Path

from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.signaling.trust import JwtKey, NoUsableKey, Trust, read_api_keys

#: What `jwt_key` says where any JWT is believed.
UNCHECKED = "unchecked"


def trust_of(jwt_key: str, api_keys: str) -> Trust:
    """What an operator lets a server believe.

    Args:
        jwt_key: a file with the secret or public key that JWTs are signed with; `unchecked`
            believes any (only on loopback); empty believes none.
        api_keys: a file of lines `NAME KEY`; empty for none.

    Raises:
        CommandFailed: a file can't be read, or holds no key.
    """
    unchecked = jwt_key == UNCHECKED
    try:
        return Trust(
            jwt=JwtKey.of_file(Path(jwt_key).expanduser()) if jwt_key and not unchecked else None,
            unchecked=unchecked,
            api_keys=read_api_keys(Path(api_keys).expanduser()) if api_keys else None,
        )
    except (NoUsableKey, ValueError) as error:
        raise CommandFailed(ExitCode.USAGE, str(error)) from error
