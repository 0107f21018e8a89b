"""Pickles as data: every opcode of protocols 0 to 5, no class, no function and no code of any file or package.

Python's own unpickler calls what a pickle names. This one knows containers, tensors and numbers; whatever else a pickle
would build stays a record of it, `Inert`. It is bounded where Python's is not: a memo index makes no table of that
length, a key is hashed only when that is cheap, and nothing shared is copied more often than the budget allows.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

OPCODES = 5_000_000  # a whole pickled YOLOv8x has about 100,000
COPIES = 5_000_000  # elements copied in constructors, and 16 bytes for each of them …
COPIED_BYTES = 4  # … and so many times the file besides
INTEGER_BITS = 4096


class Damaged(ValueError):
    """What is wrong with the content of a file; whoever knows the file's name makes a sentence of it."""


class Source(Protocol):
    """What `pickletools` reads from: an mmap or a BytesIO."""

    def read(self, n: int = ...) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...
    def seek(self, offset: int, whence: int = ...) -> Any: ...


class Global(NamedTuple):
    """A class or a function of some package, by name; never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Inert:
    """An object of a class that is not known: what it was made of, never what it would do.

    kind:  the class, or the function that was to be called
    args:  what it would have been called with
    state: its attributes
    items: what was to be appended, or (key, value) pairs that were to be set
    """

    __slots__ = ("kind", "args", "state", "items")

    def __init__(self, kind: Global, args: tuple[Any, ...] = ()) -> None:
        self.kind = kind
        self.args = args
        self.state: dict[Any, Any] = {}
        self.items: list[Any] = []

    @property
    def name(self) -> str:
        """The name of the class, without its package."""
        return self.kind.name.rpartition(".")[2]


Known = Mapping[Global, Callable[..., Any]]

# Other names of the same modules: Python 2's, which protocol 2 keeps writing, and those of numpy 2.
_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_NUMPY = "numpy._core"

_CALL = Global("builtins", "<call>")  # a call of something that is no name


def load_pickle(source: Source, known: Known, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The object of the pickle at the position of `source`, which is left behind its end.

    `known` maps names to what makes data of their arguments; `persistent` resolves persistent ids. Raises Damaged.
    """
    try:
        return _Machine({**_CONTAINERS, **known}, persistent, COPIED_BYTES * _length(source)).run(source)
    except Damaged:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise Damaged(f"its pickle is broken ({type(error).__name__})") from None


class _Machine:
    """The stack machine of the pickle protocol."""

    def __init__(self, known: Known, persistent: Callable[[Any], Any] | None, copied_bytes: int) -> None:
        self.known = known
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.elements = COPIES
        self.bytes = 16 * COPIES + copied_bytes

    def run(self, source: Source) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(source)):
            if count >= OPCODES:
                raise Damaged(f"its pickle has more than {OPCODES:,} steps")
            name = opcode.name
            if name in _PUSHES:
                self.push(_number(argument) if type(argument) is int else argument)
            elif name in _CONSTANTS:
                self.push(_CONSTANTS[name])
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise Damaged(f"its pickle uses {name}, which no checkpoint needs")
        return self.stack.pop()

    # Stack and memo

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def drop_mark(self, _: Any) -> None:
        self.pop_mark()

    def dup(self, _: Any) -> None:
        self.push(self.stack[-1])

    def put(self, index: Any) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: Any) -> None:
        self.push(self.memo[index])

    # Containers

    def empty_list(self, _: Any) -> None:
        self.push([])

    def empty_dict(self, _: Any) -> None:
        self.push({})

    def empty_set(self, _: Any) -> None:
        self.push(set())

    def make_list(self, _: Any) -> None:
        self.push(self.pop_mark())

    def make_tuple(self, _: Any) -> None:
        self.push(tuple(self.pop_mark()))

    def make_dict(self, _: Any) -> None:
        items = self.pop_mark()
        self.push({})
        self.set_pairs(items)

    def make_frozenset(self, _: Any) -> None:
        self.push(frozenset(map(key, self.pop_mark())))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise Damaged("its pickle takes more from the stack than is there")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(items)

    def append(self, _: Any) -> None:
        self.extend([self.stack.pop()])

    def appends(self, _: Any) -> None:
        self.extend(self.pop_mark())

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(items)
        elif type(target) is list:
            target.extend(items)
        else:
            raise Damaged(f"its pickle appends to a {type(target).__name__}")

    def add_items(self, _: Any) -> None:
        items, target = self.pop_mark(), self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(items)
        elif type(target) is set:
            target.update(map(key, items))
        else:
            raise Damaged(f"its pickle adds to a {type(target).__name__}")

    def set_item(self, _: Any) -> None:
        value, name = self.stack.pop(), self.stack.pop()
        self.set_pairs([name, value])

    def set_items(self, _: Any) -> None:
        self.set_pairs(self.pop_mark())

    def set_pairs(self, items: list[Any]) -> None:
        target, pairs = self.stack[-1], list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, Inert):
            target.items.extend(pairs)
        elif type(target) is dict:
            target.update((key(name), value) for name, value in pairs)
        else:
            raise Damaged(f"its pickle sets items of a {type(target).__name__}")

    # Objects

    def push_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push(_global(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(_global(module, name))

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.push(self.call(function, arguments))

    def new_object(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        self.push(self.call(kind, arguments))

    def new_object_with_names(self, _: Any) -> None:
        names, arguments, kind = self.stack.pop(), self.stack.pop(), self.stack.pop()
        made = self.call(kind, arguments)
        if isinstance(made, Inert) and type(names) is dict:
            made.state = names
        self.push(made)

    def object_of_mark(self, _: Any) -> None:
        kind, *arguments = self.pop_mark()
        self.push(self.call(kind, tuple(arguments)))

    def instance(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push(self.call(_global(module, name), tuple(self.pop_mark())))

    def call(self, function: Any, arguments: Any) -> Any:
        """Data for what `function(*arguments)` would have been."""
        if type(arguments) is not tuple:
            raise Damaged(f"its pickle calls something with a {type(arguments).__name__} for arguments")
        if not isinstance(function, Global):
            return Inert(_CALL, (function, *self.paid(arguments)))
        if function == _RECONSTRUCTOR and arguments and isinstance(arguments[0], Global):  # protocols 0 and 1
            return self.call(arguments[0], ())
        make = self.known.get(function)
        if make is None:
            return Inert(function, arguments)
        for argument in arguments:
            self.paid(argument)
        return make(*arguments)

    def paid(self, items: Any) -> Any:
        """`items`, a copy of which is about to be made: many copies of one long list would fill the memory."""
        if isinstance(items, (str, bytes, bytearray)):
            self.bytes -= len(items)
        elif isinstance(items, (list, tuple, dict, set, frozenset)):
            self.elements -= len(items)
        if self.elements < 0 or self.bytes < 0:
            raise Damaged("its pickle copies the same things over and over")
        return items

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(state) is tuple and len(state) == 2 and all(part is None or type(part) is dict for part in state):
            state = state[0] or state[1] or {}  # attributes, and those in __slots__
        if isinstance(target, Inert):
            target.state = state if type(state) is dict else {"state": state}
        elif hasattr(target, "set_state"):
            target.set_state(state)
        elif type(target) not in (dict, set):  # attributes of a container, such as a state_dict's _metadata
            raise Damaged(f"its pickle gives attributes to a {type(target).__name__}")

    def persistent_id(self, _: Any) -> None:
        self.push(self.resolve(self.stack.pop()))

    def persistent_text(self, argument: str) -> None:
        self.push(self.resolve(argument))

    def resolve(self, identifier: Any) -> Any:
        if self.persistent is None:
            raise Damaged("its pickle refers to something outside of it")
        return self.persistent(identifier)


def _length(source: Source) -> int:
    at = source.tell()
    source.seek(0, 2)
    end = source.tell()
    source.seek(at)
    return end


def key(value: Any) -> Any:
    """`value`, if it may be a key: hashing nested tuples can take for ever, or all of the stack."""
    if isinstance(value, Global) or type(value) in (str, bytes, bool, float, type(None), Inert):
        return value
    if type(value) is int and abs(value) < 1 << 60:  # larger ones can be made to collide
        return value
    if type(value) is tuple and len(value) <= 16:
        for part in value:
            if type(part) not in (str, bytes, bool, int, float, type(None)):
                break
        else:
            return value
    raise Damaged(f"its pickle has a key that is a {type(value).__name__} of a form that no checkpoint has")


def _number(value: int) -> int:
    if value.bit_length() > INTEGER_BITS:
        raise Damaged(f"its pickle has a number of {value.bit_length():,} bits")
    return value


def _global(module: Any, name: Any) -> Global:
    if type(module) is not str or type(name) is not str:
        raise Damaged("its pickle names something by no text")
    if module.startswith(_NUMPY):
        module = "numpy.core" + module.removeprefix(_NUMPY)
    return Global(_MODULES.get(module, module), name)


def _pairs(items: Iterable[Any] = ()) -> dict[Any, Any]:
    return {key(name): value for name, value in (items.items() if isinstance(items, dict) else items)}


def _default(_: Any = None, items: Iterable[Any] = ()) -> dict[Any, Any]:
    return _pairs(items)


def _encoded(text: Any, encoding: str = "utf-8", *_: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise Damaged("its pickle has bytes in an encoding that pickles do not use")
    return text.encode(encoding)


def _bytes(value: Any = b"", encoding: str = "latin1") -> bytes:
    if type(value) is str:
        return _encoded(value, encoding)
    if not isinstance(value, (bytes, bytearray)):  # bytes(10**12) are a terabyte of zeros
        raise Damaged("its pickle makes bytes of something else than text")
    return bytes(value)


_RECONSTRUCTOR = Global("copyreg", "_reconstructor")
_CONTAINERS: Known = {
    Global("collections", "OrderedDict"): _pairs,
    Global("collections", "Counter"): _pairs,
    Global("collections", "defaultdict"): _default,
    Global("builtins", "dict"): _pairs,
    Global("builtins", "list"): lambda items=(): list(items),
    Global("builtins", "tuple"): lambda items=(): tuple(items),
    Global("builtins", "set"): lambda items=(): set(map(key, items)),
    Global("builtins", "frozenset"): lambda items=(): frozenset(map(key, items)),
    Global("builtins", "bytes"): _bytes,
    Global("builtins", "bytearray"): _bytes,
    Global("_codecs", "encode"): _encoded,
}

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUSHES = frozenset(
    "INT LONG BININT BININT1 BININT2 LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE "
    "BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 FLOAT BINFLOAT".split()
)
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.drop_mark,
    "DUP": _Machine.dup,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "EMPTY_SET": _Machine.empty_set,
    "LIST": _Machine.make_list,
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "DICT": _Machine.make_dict,
    "FROZENSET": _Machine.make_frozenset,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.add_items,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.push_global,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "NEWOBJ_EX": _Machine.new_object_with_names,
    "OBJ": _Machine.object_of_mark,
    "INST": _Machine.instance,
    "BUILD": _Machine.build,
    "PERSID": _Machine.persistent_text,
    "BINPERSID": _Machine.persistent_id,
}
