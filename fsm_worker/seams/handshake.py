"""The first words of a link: hello and proof, of both sides.

Each side signs what both have said and both DTLS fingerprints as it sees them (`protocol.proof`):
whoever carries the offers can't stand in the middle.
"""

from collections.abc import Callable, Mapping

from fsm_worker.effects import CheckProof, SendHello, SendProof
from fsm_worker.events import Event, ProofChecked, Received
from fsm_worker.identity import Identity, Trust, proved
from fsm_worker.seams.channels import Channels
from protocol import CONTROL_LABEL, NATIVE_VERSION
from protocol import messages as m
from protocol.codec import Frame, encode
from protocol.proof import invitation


class Handshake:
    """The handshakes of this process.

    Args:
        links: the channels of every link, by its name.
        identity: our key.
        trust: says whether a proved peer may come in, and what it may do then.
        role: "worker" or "client".
        secret: the one-time invitation (client); empty if the worker knows us.
        post: puts an event of a link into the inbox.
    """

    def __init__(  # noqa: PLR0917 - made once, by `PeerLinks`
        self,
        links: Mapping[str, Channels],
        identity: Identity,
        trust: Trust,
        role: str,
        secret: bytes,
        post: Callable[[str, Event], None],
    ) -> None:
        self._links = links
        self._identity = identity
        self._trust = trust
        self._role = role
        self._secret = secret
        self._post = post

    def send_hello(self, effect: SendHello) -> None:
        """Opens the handshake."""
        channels, facts = self._links[effect.subject], effect.facts
        channels.ours = m.Hello(
            versions=(NATIVE_VERSION,),
            role=self._role,
            key=self._identity.key,
            nonce=channels.nonce,
            session=facts.session if self._role == "client" else "",
            generation=facts.generation if self._role == "client" else 1,
            implementation="fsm-worker",
        )
        channels.send(CONTROL_LABEL, encode(Frame(msg=channels.ours)))

    def send_proof(self, effect: SendProof) -> None:
        """Proves our key for this connection; both hellos are known now."""
        channels = self._links[effect.subject]
        if isinstance(effect.event, Received):
            channels.theirs = effect.event.message
        signed = channels.transcript(self._role)
        proof = m.Proof(
            signature=self._identity.sign(signed),
            invitation=invitation(self._secret, signed) if self._secret else "",
        )
        channels.send(CONTROL_LABEL, encode(Frame(msg=proof)))

    def check_proof(self, effect: CheckProof) -> None:
        """Compares the peer's proof with our own view of the connection."""
        channels = self._links[effect.subject]
        theirs = channels.theirs
        if theirs is None or not isinstance(effect.event, Received):
            return
        proof: m.Proof = effect.event.message
        peer_role = "client" if self._role == "worker" else "worker"
        signed = channels.transcript(peer_role)
        both = all(channels.fingerprints())
        right = both and theirs.role == peer_role and proved(theirs.key, proof.signature, signed)
        refusal = self._trust(theirs, proof, signed) if right else ""
        reason = refusal if right else "the proof does not belong to this key and this connection"
        rights = self._trust.rights(theirs.key)
        checked = ProofChecked(
            proved=right, trusted=right and not refusal, rights=rights, reason=reason
        )
        self._post(effect.subject, checked)
