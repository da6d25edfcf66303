"""What a board is: one TOML file each, and one typed loader. Imports nothing else of this kit.

>>> load_board("rpi5").cpu.core
'cortex-a76'
"""

from boards.errors import BoardError, KitError
from boards.load import list_boards, load_board
from boards.model import MACS_ALONE, Board, Cost, Cpu, Emulator, Link, Memory, Storage, UsbId

__all__ = [
    "MACS_ALONE",
    "Board",
    "BoardError",
    "Cost",
    "Cpu",
    "Emulator",
    "KitError",
    "Link",
    "Memory",
    "Storage",
    "UsbId",
    "list_boards",
    "load_board",
]
