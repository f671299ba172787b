"""A desk with one reader, a PIV card in it, and a credential file; what reached the card is looked at afterwards."""

from dataclasses import dataclass, field
from pathlib import Path

from mpagent.hal.card import CardChoice, CardParts, open_parts
from mpagent.hal.ports import Keyring
from mpsim.piv import accidents, memory
from mpsim.piv.accidents import Accident
from mpsim.piv.memory import CardAuthority, Memory
from mpsim.piv.slot import CardSlot
from mpsim.shelf import MemoryShelf

AUTHORITY = CardAuthority()
WRONG_PIN = "654321"
_VERIFY = 0x20
_GENERAL_AUTHENTICATE = 0x87


@dataclass
class Desk:
    """One card by folder, unless a test puts another one into the slot."""

    folder: Path
    shelf: MemoryShelf = field(default_factory=MemoryShelf)

    def __post_init__(self) -> None:
        self.card = self.make_card("card")
        self.slot = CardSlot(self.card)
        self.pin_file = self.folder / "pin"
        self.write_pin(memory.DEFAULT_PIN)

    def make_card(self, name: str) -> Path:
        """Another card of the same issuer."""
        memory.make_card(self.folder / name, AUTHORITY)
        return self.folder / name

    def write_pin(self, text: str) -> None:
        """As systemd leaves a credential: for its owner alone."""
        self.pin_file.unlink(missing_ok=True)
        self.pin_file.write_text(text)
        self.pin_file.chmod(0o400)

    def open(self, others: Keyring | None = None, chain_file: Path | None = None) -> CardParts:
        """A process starts."""
        choice = CardChoice(self.pin_file, chain_file=chain_file)
        return open_parts(self.slot, choice, self.shelf, others)

    def script(self, instruction: str, *steps: Accident) -> None:
        """What the next commands of this instruction meet."""
        accidents.script(self.card, instruction, steps)

    def memory(self) -> Memory:
        """What the card in the drawer remembers."""
        return memory.load(self.card)

    def set_tries(self, tries: int) -> None:
        """Somebody else used up the others."""
        memory.save(self.card, Memory(**{**vars(self.memory()), "tries": tries}))

    def put_object(self, tag: int, held: bytes) -> None:
        """The card's issuer writes a data object."""
        now = self.memory()
        now.objects[tag] = held
        memory.save(self.card, now)

    def pins_given(self) -> int:
        """How often a PIN was said to any card in the slot; asking for the count is not saying it."""
        return sum(1 for apdu in self.slot.said if apdu[1] == _VERIFY and len(apdu) > 5)

    def keys_used(self) -> int:
        """How often a key was asked for."""
        return sum(1 for apdu in self.slot.said if apdu[1] == _GENERAL_AUTHENTICATE)
