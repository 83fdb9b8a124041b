"""Refuse pickles that would hang a reader, or fill its memory, before one is read.

The readers run nothing that a pickle names, but what they do themselves can take forever. A tuple that contains another
twice, which contains a third twice, and so on, takes 230 bytes; as a key of a dictionary it takes longer than anybody
lives, in one call that no signal interrupts. Data sets and weights need no such things.
"""

import io
import pickle
import pickletools
from collections.abc import Callable

#: A batch of CIFAR-10 has about 60,000 instructions, a file of weights some 40 for each tensor.
MOST_INSTRUCTIONS = 1_000_000
#: Objects in a tuple and in the tuples within it, each counted as often as it is there.
LARGEST_TUPLE = 100
#: Integers above `_LARGEST`, whose hashes can be made equal, so that a dictionary of them takes quadratic time.
MOST_LARGE_INTEGERS = 100

_LARGEST = 2**60
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
_MARK = 0  # among the sizes of objects


def check(file: io.BytesIO, allowed: Callable[[str], bool] | None = None) -> None:
    """Go through the instructions of the next pickle in a file, build nothing, and stop behind it.

    Args:
        file: where the pickle begins.
        allowed: tells whether the pickle may ask for a ``"module name"``; by default its reader tells.

    Raises:
        UnpicklingError: the pickle would take too much, or asks for what is not allowed.
        ValueError, IndexError, KeyError: it is damaged.

    Example:
        >>> check(io.BytesIO(pickle.dumps([("a", 1), ("b", 2)])))
    """
    stack: list[int] = []  # sizes: the number of objects in a tuple, 1 for anything else
    memo: dict[int, int] = {}
    large, begin = 0, file.tell()
    size_of_file = file.seek(0, io.SEEK_END)
    file.seek(begin)
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name, index = opcode.name, argument if isinstance(argument, int) else 0
        large += abs(index) > _LARGEST
        if number > MOST_INSTRUCTIONS or large > MOST_LARGE_INTEGERS:
            raise pickle.UnpicklingError("it has more instructions or large integers than any such file needs")
        if name == "GLOBAL" and allowed is not None and not allowed(str(argument)):
            raise pickle.UnpicklingError(f"it asks for {argument}")
        if name in _PUTS:
            if index > size_of_file:  # indices count up from 0, but pickle allocates up to 32 GiB for one
                raise pickle.UnpicklingError("it is damaged or was made up")
            memo[index] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in _GETS or name == "DUP":
            stack.append(memo[index] if name in _GETS else stack[-1])
        else:
            taken = _take(stack, opcode)
            size = 1 + sum(taken) if name in _TUPLES else 1
            if size > LARGEST_TUPLE:
                raise pickle.UnpicklingError(f"it has a tuple of more than {LARGEST_TUPLE} objects")
            stack += [_MARK if name == "MARK" else size] * len(opcode.stack_after)


def _take(stack: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Take what an instruction takes: all down to the last mark, if it says so, and a number of objects below."""
    before, taken = opcode.stack_before, list[int]()
    if pickletools.markobject in before or (opcode.name == "POP" and stack[-1] == _MARK):
        while (size := stack.pop()) != _MARK:
            taken.append(size)
        before = before[: before.index(pickletools.markobject)] if pickletools.markobject in before else []
    return taken + [stack.pop() for _ in before]
